# Fit the formulas of docs/user_guide/lme4_formulas.csv with lme4, and print the fits as JSON.
#
#   Rscript tests/reference/formula_fits.R [--small-only] > tests/data/formulas.json
#
# --small-only leaves out insteval, the one that is large. Needs the packages lme4 and jsonlite.

suppressPackageStartupMessages(library(lme4))
SCRIPT <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))
source(file.path(dirname(SCRIPT), "models.R"))

ROOT <- dirname(dirname(dirname(SCRIPT)))
TABLE <- file.path(ROOT, "docs", "user_guide", "lme4_formulas.csv")

# The page shows code between pairs of backticks.
without_backticks <- function(text) gsub("``", "", text, fixed = TRUE)

# The table names the loader of a data set, such as load_cake, and InstEval, which has none.
data_of <- function(cell) tolower(sub("^load_", "", without_backticks(cell)))

# Covariance matrix of each factor's effects, the intercept first. What lme4 splits in parts, such as
# Subject and Subject.1, is joined; with parts it also writes a.b where the formula says a:b.
covariances <- function(fit) {
  factors <- unique(vapply(findbars(formula(fit)), group_of, ""))
  entries <- subset(as.data.frame(VarCorr(fit)), grp != "Residual")
  written <- make.names(sub("[.][0-9]+$", "", entries$grp))
  lapply(split(entries, factors[match(written, make.names(factors))]), function(part) {
    names <- unique(part$var1)
    names <- names[order(names != "(Intercept)")]
    Sigma <- matrix(0, length(names), length(names), dimnames = list(names, names))
    other <- ifelse(is.na(part$var2), part$var1, part$var2)
    Sigma[cbind(part$var1, other)] <- Sigma[cbind(other, part$var1)] <- part$vcov
    unname(Sigma)
  })
}

# The arguments of lmer() are text: a formula and what may follow it.
describe_fit <- function(name, arguments) {
  data <- read.csv(csv_file(name))
  fit <- eval(parse(text = sprintf("lmer(%s, data = data, control = CONTROL)", arguments)))
  list(
    data = name,
    lmer = arguments,
    criterion = if (isREML(fit)) REMLcrit(fit) else deviance(fit),
    fixef = as.list(fixef(fit)),
    varcomp = covariances(fit),
    sigma2 = sigma(fit)^2,
    singular = isSingular(fit)
  )
}

main <- function(arguments) {
  if (length(setdiff(arguments, "--small-only"))) stop("usage: formula_fits.R [--small-only]")
  table <- read.csv(TABLE)
  table$name <- data_of(table$Data)
  if ("--small-only" %in% arguments) table <- table[table$name != "insteval", ]
  fits <- Map(describe_fit, table$name, without_backticks(table$lmer))
  record <- list(lme4 = as.character(packageVersion("lme4")), fits = unname(fits))
  cat(jsonlite::toJSON(record, auto_unbox = TRUE, digits = NA, pretty = 2), "\n", sep = "")
}

main(commandArgs(trailingOnly = TRUE))
