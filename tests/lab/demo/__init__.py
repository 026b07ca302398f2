"""The show behind `make demo`: every claim that it makes is checked, and it fails if one is wrong."""
