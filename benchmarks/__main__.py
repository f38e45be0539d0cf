"""`make bench`: the benchmarks that take minutes, on the embedded model."""

from benchmarks import http_streams

if __name__ == "__main__":
    http_streams.main()
