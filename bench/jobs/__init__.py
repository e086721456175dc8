"""Small Spark jobs that the benchmark adds to the product's: exporting and filling features."""
