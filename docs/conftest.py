"""Which pages hold examples to test: those that are written by hand."""

collect_ignore = ["conf.py"]
collect_ignore_glob = ["_build/*", "gallery/*"]
