"""The Airflow side of Fruits!: settings, plan, cost, clusters, steps, sensors and the run's record."""
