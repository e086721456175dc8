"""The demo: a whole pipeline on this machine, with an Airflow and an AWS emulator of its own."""
