"""The only package that imports TensorFlow; the estimator imports it inside ``fit``."""
