"""The web service: footprints of a place over HTTP. It needs neither Keras nor TensorFlow."""
