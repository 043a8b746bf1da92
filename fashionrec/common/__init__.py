"""What every other package may use: the floor below models, catalogues and data sets."""
