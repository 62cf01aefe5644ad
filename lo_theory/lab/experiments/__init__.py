"""The experiments: one module each, with the settings of a row, its units of work, its tables and its figures."""
