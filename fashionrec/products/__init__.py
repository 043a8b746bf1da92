"""Product tables: rows, columns and prices as shops write them."""
