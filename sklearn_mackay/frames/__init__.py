"""Users' tables to arrays, and arrays to tables: the only place that meets user types."""
