"""Product tables: rows, columns and prices in the formats of shops."""
