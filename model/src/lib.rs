//! The vocabulary of Headwater with its laws: optimes, ids, epochs, limits.
