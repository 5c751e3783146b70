//! When to use, refresh or grant a token: the decision, without I/O.
