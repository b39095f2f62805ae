# What several scripts here know of a model: its data, how tightly it is fitted, its groups and
# slopes. They say in SCRIPT where they lie.

# Far tighter than lme4's defaults, so that the optimiser's tolerance is not what a test sees.
CONTROL <- lmerControl(
  optimizer = "bobyqa",
  optCtrl = list(rhoend = 1e-10, maxfun = 1e5),
  calc.derivs = FALSE
)

# The CSV file of a data set: the package's own, or one of tests/data, which may be compressed.
csv_file <- function(name) {
  folders <- file.path(dirname(dirname(dirname(SCRIPT))), c("sklearn_mackay", "tests"), "data")
  paths <- c(outer(folders, paste0(name, c(".csv", ".csv.gz")), file.path))
  paths[file.exists(paths)][1]
}

group_of <- function(bar) deparse(bar[[3]])

slopes_of <- function(bar) all.vars(bar[[2]])

# Slopes by group; NULL where there are none.
random_slopes <- function(bars) {
  slopes <- list()
  for (bar in Filter(function(bar) length(slopes_of(bar)) > 0, bars)) {
    group <- group_of(bar)
    slopes[[group]] <- c(slopes[[group]], slopes_of(bar))
  }
  if (length(slopes)) slopes
}
