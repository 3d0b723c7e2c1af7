"""HTTP: routes are declared as functions; values, replies, errors and documents derive from the declarations."""
