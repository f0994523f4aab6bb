"""How smell objects are named, in each language: the tables, and the code that reads them."""
