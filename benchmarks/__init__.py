"""Measurements that a claim rests on. They are not tests; dated results lie beside them."""
