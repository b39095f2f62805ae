# Fit linear mixed models with lme4, lmerTest and pbkrtest, and print what they infer as JSON.
#
#   Rscript tests/reference/inference_fits.R [--small-only] > inference.json
#   Rscript tests/reference/inference_fits.R --cake > sklearn_mackay/data/cake.csv
#
# The first form is tests/data/inference.json; --small-only leaves out insteval, the one that is
# large. Needs the packages lme4, lmerTest, pbkrtest and jsonlite.

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
})

SCRIPT <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))
source(file.path(dirname(SCRIPT), "models.R"))

FORMULAS <- list(
  sleepstudy = Reaction ~ Days + (Days | Subject),
  dyestuff = Yield ~ 1 + (1 | Batch),
  penicillin = diameter ~ 1 + (1 | plate) + (1 | sample),
  pastes = strength ~ 1 + (1 | sample) + (1 | batch),
  cake = angle ~ temp + (1 | replicate) + (1 | recipe:replicate),
  insteval = y ~ service + (1 | s) + (1 | d) + (1 | dept)
)
NULL_FORMULA <- Reaction ~ Days + (1 | Subject)
# Compared by REML, the fixed parts being the same.
NULL_FORMULAS <- list(
  sleepstudy = NULL_FORMULA,
  pastes = strength ~ 1 + (1 | sample),
  cake = angle ~ temp + (1 | replicate)
)

LEVELS <- c("0.95" = 0.95, "0.9" = 0.9)
DELTA <- 0.02          # step of the profile, in units of the root of the deviance
DELTA_CHECK <- 0.03    # a second one, to see what the interpolation between steps costs
CUTOFF <- 2.2          # where the profile ends; the wider interval is at 1.96
MAX_POINTS <- 2000     # of a profile
N_LEVELS <- 50         # levels kept of a factor of insteval

# Columns of groups become factors, with levels in the order of their labels as strings.
read_data <- function(name, formula) {
  columns <- unique(unlist(lapply(findbars(formula), function(bar) all.vars(bar[[3]]))))
  classes <- setNames(rep("character", length(columns)), columns)
  data <- read.csv(csv_file(name), colClasses = classes)
  data[columns] <- lapply(data[columns], factor)
  data
}

version_of <- function(package) as.character(packageVersion(package))

describe_model <- function(name, formula, data) {
  bars <- findbars(formula)
  list(
    id = name,
    csv = paste0(name, ".csv"),
    formula = paste(deparse(formula), collapse = " "),
    y = all.vars(formula[[2]]),
    fixed = I(attr(terms(nobars(formula)), "term.labels")),
    groups = I(unique(vapply(bars, group_of, ""))),
    random_slopes = random_slopes(bars),
    covariance = "full",
    weights = NULL,
    lme4 = version_of("lme4"),
    lmerTest = version_of("lmerTest"),
    pbkrtest = version_of("pbkrtest"),
    n = nrow(data)
  )
}

fit_model <- function(formula, data, reml) {
  environment(formula) <- environment()
  lme4::lmer(formula, data, REML = reml, control = CONTROL)
}

coefficient_table <- function(fit, ddf) {
  coef(summary(as_lmerModLmerTest(fit), ddf = ddf))
}

satterthwaite_tests <- function(table) {
  columns <- c(
    estimate = "Estimate", std_error = "Std. Error", df = "df", t = "t value", p = "Pr(>|t|)"
  )
  apply(table[, columns, drop = FALSE], 1, function(row) as.list(setNames(row, names(columns))))
}

# Standard deviations of the random effects of one factor given the data, the variances and the
# fixed effects: one row for each level.
conditional_stds <- function(effects, n_levels) {
  variances <- attr(effects, "postVar")
  stds <- sqrt(t(apply(variances, 3, diag)))
  if (dim(variances)[[1]] == 1) stds <- t(stds)
  unname(head(stds, n_levels))
}

describe_reml_fit <- function(formula, data, kenward_roger, n_levels) {
  fit <- fit_model(formula, data, reml = TRUE)
  effects <- ranef(fit, condVar = TRUE)
  record <- list(
    criterion = REMLcrit(fit),
    fixed = satterthwaite_tests(coefficient_table(fit, "Satterthwaite"))
  )
  if (kenward_roger) {
    table <- coefficient_table(fit, "Kenward-Roger")
    record$kenward_roger_df <- as.list(setNames(table[, "df"], rownames(table)))
  }
  record$cond_std <- lapply(effects, conditional_stds, n_levels)
  record$levels <- lapply(effects, function(e) I(head(rownames(e), n_levels)))
  record$vcov <- unname(as.matrix(vcov(fit)))
  record
}

by_coefficient <- function(intervals) {
  apply(intervals, 1, function(row) unname(row), simplify = FALSE)
}

# Near the smallest deviance CONTROL asks bobyqa for steps below rounding error, and it says so.
without_rounding_warnings <- function(expression) {
  withCallingHandlers(expression, warning = function(condition) {
    if (grepl("trust region step failed to reduce q", conditionMessage(condition), fixed = TRUE)) {
      invokeRestart("muffleWarning")
    }
  })
}

profile_intervals <- function(fit, delta) {
  n_parameters <- length(getME(fit, "theta")) + 1 + length(fixef(fit))
  profiled <- without_rounding_warnings(profile(
    fit,
    alphamax = pchisq(CUTOFF^2, n_parameters, lower.tail = FALSE),
    delta = delta,
    maxpts = MAX_POINTS,
    signames = FALSE
  ))
  lapply(LEVELS, function(level) confint(profiled, level = level))
}

describe_profile <- function(formula, data) {
  fit <- fit_model(formula, data, reml = FALSE)
  intervals <- profile_intervals(fit, DELTA)
  check <- profile_intervals(fit, DELTA_CHECK)
  differences <- unlist(Map(function(a, b) abs(a / b - 1), intervals, check))
  record <- lapply(intervals, by_coefficient)
  record$criterion <- deviance(fit)
  record$delta <- DELTA
  record$delta_check <- DELTA_CHECK
  record$largest_relative_difference <- max(differences)
  record
}

describe_anova <- function(data) {
  small <- fit_model(NULL_FORMULA, data, reml = FALSE)
  large <- fit_model(FORMULAS$sleepstudy, data, reml = FALSE)
  table <- anova(small, large)
  list(
    formula = paste(deparse(FORMULAS$sleepstudy), collapse = " "),
    null_formula = paste(deparse(NULL_FORMULA), collapse = " "),
    criterion = deviance(large),
    null_criterion = deviance(small),
    chisq = table$Chisq[[2]],
    df = table$Df[[2]],
    p = table[["Pr(>Chisq)"]][[2]]
  )
}

describe_anova_reml <- function(name, data) {
  small <- fit_model(NULL_FORMULAS[[name]], data, reml = TRUE)
  large <- fit_model(FORMULAS[[name]], data, reml = TRUE)
  table <- anova(small, large, refit = FALSE)
  list(
    null_groups = I(group_names(NULL_FORMULAS[[name]])),
    chisq = table$Chisq[[2]],
    df = table$Df[[2]],
    p = table[["Pr(>Chisq)"]][[2]]
  )
}

group_names <- function(formula) unique(vapply(findbars(formula), group_of, ""))

describe_wald <- function(formula, data) {
  fit <- fit_model(formula, data, reml = FALSE)
  lapply(LEVELS, function(level) {
    by_coefficient(confint(fit, parm = "beta_", level = level, method = "Wald"))
  })
}

# Nakagawa and Schielzeth (2013), with Johnson's (2014) variance for random slopes: the mean over
# the rows of z' Sigma z. The variance of the fixed part has the denominator n.
nakagawa <- function(formula, data) {
  fit <- fit_model(formula, data, reml = TRUE)
  fixed_part <- drop(getME(fit, "X") %*% fixef(fit))
  fixed <- mean((fixed_part - mean(fixed_part))^2)
  columns <- getME(fit, "mmList")
  names(columns) <- sub("^.*[|] ", "", names(columns))
  random <- sum(vapply(names(VarCorr(fit)), function(group) {
    z <- columns[[group]]
    mean(rowSums((z %*% VarCorr(fit)[[group]]) * z))
  }, 0))
  residual <- sigma(fit)^2
  total <- fixed + random + residual
  list(
    variance_fixed = fixed,
    variance_random = random,
    variance_residual = residual,
    marginal = fixed / total,
    conditional = (fixed + random) / total
  )
}

describe <- function(name) {
  formula <- FORMULAS[[name]]
  data <- read_data(name, formula)
  large <- name == "insteval"
  record <- describe_model(name, formula, data)
  record$reml <- describe_reml_fit(formula, data, !large, if (large) N_LEVELS else Inf)
  if (name %in% c("sleepstudy", "dyestuff")) record$profile_ml <- describe_profile(formula, data)
  if (name == "sleepstudy") {
    record$anova <- describe_anova(data)
    record$wald_ml <- describe_wald(formula, data)
  }
  if (name %in% names(NULL_FORMULAS)) record$anova_reml <- describe_anova_reml(name, data)
  if (name %in% c("sleepstudy", "penicillin")) record$nakagawa <- nakagawa(formula, data)
  record
}

main <- function(arguments) {
  if (length(setdiff(arguments, c("--small-only", "--cake")))) {
    stop("usage: inference_fits.R [--small-only | --cake]")
  }
  if ("--cake" %in% arguments) {
    columns <- c("recipe", "temp", "replicate", "angle")
    return(write.csv(lme4::cake[columns], row.names = FALSE))
  }
  names <- names(FORMULAS)
  if ("--small-only" %in% arguments) names <- setdiff(names, "insteval")
  records <- lapply(setNames(names, names), describe)
  cat(jsonlite::toJSON(records, auto_unbox = TRUE, digits = NA, null = "null"), "\n", sep = "")
}

main(commandArgs(trailingOnly = TRUE))
