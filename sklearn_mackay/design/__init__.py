"""All columns of the model, and the response."""
