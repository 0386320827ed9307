"""The cost of a conversion, its return in money, and the prompt length from which it is faster."""
