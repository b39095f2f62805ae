# Fit a workload with lme4's lmer() at its defaults; speaks the protocol of protocol.py.

suppressPackageStartupMessages(library(lme4))

arguments <- commandArgs(trailingOnly = TRUE)  # data, formula, grouping columns, predictions
FORMULA <- as.formula(arguments[[2]])
GROUPS <- strsplit(arguments[[3]], ",")[[1]]
PREDICTIONS <- as.integer(arguments[[4]])

send <- function(record) {
  cat(jsonlite::toJSON(record, auto_unbox = TRUE, digits = NA), "\n", sep = "")
  flush(stdout())
}

timed_fit <- function(data) {
  start <- proc.time()[["elapsed"]]
  fit <- lmer(FORMULA, data, REML = TRUE)
  list(fit = fit, seconds = proc.time()[["elapsed"]] - start)
}

timed_predictions <- function(fit, row) {
  timed <- function(i) system.time(predict(fit, row), gcFirst = FALSE)[["elapsed"]]
  list(
    seconds = median(vapply(seq_len(PREDICTIONS), timed, 0)),
    prediction = unname(predict(fit, row))
  )
}

describe <- function(fit) {
  triangle <- function(v) I(v[upper.tri(v, diag = TRUE)])
  components <- lapply(VarCorr(fit), triangle)
  list(
    variance_components = c(components, list(residual = I(sigma(fit)^2))),
    fixed_effects = I(unname(fixef(fit))),
    criterion = REMLcrit(fit)
  )
}

data <- read.csv(arguments[[1]])
data[GROUPS] <- lapply(data[GROUPS], factor)
send(list(versions = list(
  lme4 = as.character(packageVersion("lme4")),
  Matrix = as.character(packageVersion("Matrix")),
  R = as.character(getRversion())
)))
timed <- NULL
input <- file("stdin", "r")
while (length(readLines(input, n = 1))) {
  if (is.null(timed) || PREDICTIONS == 0) timed <- timed_fit(data)
  measured <- if (PREDICTIONS > 0) timed_predictions(timed$fit, data[1, ]) else timed["seconds"]
  send(c(measured, describe(timed$fit)))
}
