"""What the Spark jobs of Fruits! share: photos in, validated pixels, features and principal components out.

The package is shipped to the cluster as ``fruits.zip`` (``--py-files``). It is pure Python: anything that needs
a JVM takes a ``SparkSession`` or a ``DataFrame`` as an argument, so that the rest is tested without one.
"""
