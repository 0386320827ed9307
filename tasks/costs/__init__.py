"""measure_costs: time every kind of layer on the device in use."""
