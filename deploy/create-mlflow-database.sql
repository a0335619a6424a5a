-- Run once, when the volume of PostgreSQL is empty. The image itself creates Dagster's database.
CREATE DATABASE mlflow;
