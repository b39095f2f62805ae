# Fit InstEval with lme4's lmer() at its defaults; speaks the protocol of protocol.py.

suppressPackageStartupMessages(library(lme4))

GROUPS <- c("s", "d", "dept")

send <- function(record) {
  cat(jsonlite::toJSON(record, auto_unbox = TRUE, digits = NA), "\n", sep = "")
  flush(stdout())
}

timed_fit <- function(data) {
  start <- proc.time()[["elapsed"]]
  fit <- lmer(y ~ service + (1 | s) + (1 | d) + (1 | dept), data, REML = TRUE)
  list(fit = fit, seconds = proc.time()[["elapsed"]] - start)
}

describe <- function(fit) {
  components <- as.list(vapply(VarCorr(fit), function(v) v[1, 1], 0))
  list(
    variance_components = c(components, residual = sigma(fit)^2),
    fixed_effects = as.list(fixef(fit)),
    criterion = REMLcrit(fit)
  )
}

data <- read.csv(commandArgs(trailingOnly = TRUE)[[1]])
data[GROUPS] <- lapply(data[GROUPS], factor)
send(list(versions = list(
  lme4 = as.character(packageVersion("lme4")),
  Matrix = as.character(packageVersion("Matrix")),
  R = as.character(getRversion())
)))
input <- file("stdin", "r")
while (length(readLines(input, n = 1))) {
  timed <- timed_fit(data)
  send(c(list(seconds = timed$seconds), describe(timed$fit)))
}
