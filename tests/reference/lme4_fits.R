# Fit one linear mixed model with lme4 and print the fit as JSON, in the form of tests/data/*.json.
#
#   Rscript tests/reference/lme4_fits.R CSV FORMULA ID [--reml-only] > ID.json
#   Rscript tests/reference/lme4_fits.R sklearn_mackay/data/sleepstudy.csv \
#     'Reaction ~ Days + (Days | Subject)' sleepstudy
#
# CSV may be gzip-compressed. Needs the packages lme4 and jsonlite.

suppressPackageStartupMessages(library(lme4))
SCRIPT <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))
source(file.path(dirname(SCRIPT), "models.R"))

N_FITTED <- 20  # fitted values kept
N_LEVELS <- 60  # levels of a factor whose random effects are kept

# Group columns become factors, with levels in the order of their labels as strings.
read_data <- function(path, groups) {
  classes <- setNames(rep("character", length(groups)), groups)
  data <- read.csv(path, colClasses = classes)
  data[groups] <- lapply(data[groups], factor)
  data
}

describe_model <- function(id, path, formula, data) {
  bars <- findbars(formula)
  list(
    id = id,
    csv = sub("\\.gz$", "", basename(path)),
    formula = paste(deparse(formula), collapse = " "),
    y = all.vars(formula[[2]]),
    fixed = I(attr(terms(nobars(formula)), "term.labels")),
    groups = I(unique(vapply(bars, group_of, ""))),
    random_slopes = random_slopes(bars),
    covariance = if (grepl("||", deparse1(formula), fixed = TRUE)) "diagonal" else "full",
    weights = NULL,
    lme4 = as.character(packageVersion("lme4")),
    n = nrow(data)
  )
}

random_effects <- function(fit) {
  lapply(ranef(fit, condVar = FALSE), function(effects) {
    kept <- head(effects, N_LEVELS)
    list(levels = I(rownames(kept)), values = unname(as.matrix(kept)))
  })
}

describe_fit <- function(formula, data, reml) {
  seconds <- system.time(fit <- lmer(formula, data, REML = reml, control = CONTROL))[["elapsed"]]
  components <- VarCorr(fit)
  list(
    criterion = if (reml) REMLcrit(fit) else deviance(fit),
    fixef = as.list(fixef(fit)),
    fixef_se = unname(sqrt(diag(as.matrix(vcov(fit))))),
    varcomp = lapply(components, function(v) unname(matrix(v, nrow(v)))),
    re_names = lapply(components, rownames),
    sigma2 = sigma(fit)^2,
    AIC = AIC(fit),
    BIC = BIC(fit),
    singular = isSingular(fit),
    seconds = seconds,
    ranef = random_effects(fit),
    fitted_head = unname(head(fitted(fit), N_FITTED))
  )
}

main <- function(arguments) {
  reml_only <- "--reml-only" %in% arguments
  arguments <- setdiff(arguments, "--reml-only")
  if (length(arguments) != 3) stop("usage: lme4_fits.R CSV FORMULA ID [--reml-only]")
  formula <- as.formula(arguments[[2]])
  data <- read_data(arguments[[1]], unique(vapply(findbars(formula), group_of, "")))
  record <- describe_model(arguments[[3]], arguments[[1]], formula, data)
  record$reml <- describe_fit(formula, data, TRUE)
  if (!reml_only) record$ml <- describe_fit(formula, data, FALSE)
  cat(jsonlite::toJSON(record, auto_unbox = TRUE, digits = NA, null = "null"), "\n", sep = "")
}

main(commandArgs(trailingOnly = TRUE))
