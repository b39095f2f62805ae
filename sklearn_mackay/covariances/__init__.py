"""Small covariance matrices."""
