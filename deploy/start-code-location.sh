#!/bin/sh
# What the container `code` runs. Unlike `dagster api grpc`, a code server loads the code anew when the UI asks for it.
set -e
python deploy/end_lost_runs.py
exec dagster code-server start --host 0.0.0.0 --port 4000 --module-name footprint_pipeline.definitions
