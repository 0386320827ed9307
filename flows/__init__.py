"""The flows of Layerwright, and the command line that starts them."""
