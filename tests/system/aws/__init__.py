"""Tests of the AWS deployment that need no AWS account: moto simulates the AWS services."""
