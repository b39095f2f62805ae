"""One model from arrays to estimates in the user's units, and what is made of a fit."""
