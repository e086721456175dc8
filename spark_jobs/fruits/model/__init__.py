"""The model: artifact, preprocessing, embedding and the Keras reference."""
