"""A view of one decode: the sequence, what was revealed when, the exact posterior and another one beside it."""
