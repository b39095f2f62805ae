# Models whose variances the rows tell only in part, or only with a residual variance that is given.
# Run in the repository root with R, lme4 1.1-31, nlme and metafor 3.8-1: it writes
# tests/data/identification.json. oxide.csv holds Oxide of nlme.

suppressMessages(library(lme4))
suppressMessages(library(metafor))

control <- lmerControl(
  optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5), calc.derivs = FALSE
)
oxide <- read.csv("tests/data/oxide.csv")
oxide$S1 <- as.numeric(oxide$Source == 1)
oxide$S2 <- as.numeric(oxide$Source == 2)
formulas <- c(
  full = "Thickness ~ S2 + (S2 | Lot) + (1 | Lot:Wafer)",
  full_without_fixed = "Thickness ~ 1 + (S2 | Lot) + (1 | Lot:Wafer)",
  diagonal = "Thickness ~ S2 + (0 + S1 | Lot) + (0 + S2 | Lot) + (1 | Lot:Wafer)"
)
criterion <- function(formula, reml) {
  fit <- lmer(as.formula(formula), oxide, REML = reml, control = control)
  if (reml) REMLcrit(fit) else deviance(fit)
}
fits <- lapply(formulas, function(formula) {
  list(formula = formula, reml = criterion(formula, TRUE), ml = criterion(formula, FALSE))
})

bcg <- read.csv("tests/data/bcg.csv")
effects <- escalc("RR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = bcg)
meta <- lapply(c(reml = "REML", ml = "ML"), function(method) {
  fit <- rma(yi, vi, data = effects, method = method,
             control = list(threshold = 1e-14, maxiter = 10000))
  list(tau2 = fit$tau2, mean = as.numeric(fit$beta), std_error = fit$se)
})

versions <- list(lme4 = as.character(packageVersion("lme4")),
                 metafor = as.character(packageVersion("metafor")))
writeLines(
  jsonlite::toJSON(list(versions = versions, oxide = fits, bcg = meta),
                   auto_unbox = TRUE, digits = NA, pretty = TRUE),
  "tests/data/identification.json"
)
