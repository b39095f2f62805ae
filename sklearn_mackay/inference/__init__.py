"""How sure estimates are."""
