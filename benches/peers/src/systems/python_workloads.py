"""The workloads of `peers` for the pools of Python.

Takes an order (JSON, see `Order` in python.rs) as its only argument and prints
lines of JSON: for the operation "hold" one line as soon as the pool is idle,
which the other side answers with a line; at the end one line with the seconds
per operation and the peak memory of this process.
"""

import json
import os
import sys
import time


def add(a, b):
    return a + b


def increment(x):
    return x + 1


def square(x):
    return x * x


def echo(data):
    changed = bytearray(data)
    changed[0] ^= 0xFF
    return bytes(changed)


def count_primes(span):
    count = 0
    for n in range(*span):
        divisor = 2
        while divisor * divisor <= n:
            if n % divisor == 0:
                break
            divisor += 1
        else:
            count += n >= 2
    return count


class Multiprocessing:
    """A pool of `multiprocessing`."""

    def __init__(self, order, workers):
        import multiprocessing

        context = multiprocessing.get_context(order["method"])
        self.pool = context.Pool(workers)

    def apply(self, function, *args):
        return self.pool.apply(function, args)

    def increments(self, tasks):
        return list(self.pool.imap(increment, range(tasks), chunksize=1))

    def squares(self, items):
        return self.pool.map(square, items)

    def primes(self, spans):
        return sum(self.pool.imap_unordered(count_primes, spans))

    def stop(self):
        # What leaving a `with` block does, and then the wait for the workers.
        self.pool.terminate()
        self.pool.join()


class Loky:
    """An executor of loky; it has no chunking of its own."""

    def __init__(self, order, workers):
        import loky

        self.pool = loky.ProcessPoolExecutor(workers)
        self.chunk = order["chunk"]

    def apply(self, function, *args):
        return self.pool.submit(function, *args).result()

    def increments(self, tasks):
        return list(self.pool.map(increment, range(tasks), chunksize=1))

    def squares(self, items):
        return list(self.pool.map(square, items, chunksize=self.chunk))

    def primes(self, spans):
        return sum(self.pool.map(count_primes, spans, chunksize=1))

    def stop(self):
        self.pool.shutdown(wait=True)


POOLS = {"multiprocessing": Multiprocessing, "loky": Loky}


def check(condition):
    if not condition:
        raise RuntimeError("a wrong result")


def seconds(operation):
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def per_operation(target, operation):
    """As `per_op` in measure.rs."""
    warm = 0
    start = time.perf_counter()
    while warm == 0 or time.perf_counter() - start < target / 4:
        operation()
        warm += 1
    batch = max(warm // 4, 1)
    done = 0
    start = time.perf_counter()
    while done == 0 or time.perf_counter() - start < target:
        for _ in range(batch):
            operation()
        done += batch
    return (time.perf_counter() - start) / done


def cycle(order, workers):
    """Starts a pool, maps over two items a worker, and stops it."""
    pool = POOLS[order["library"]](order, workers)
    items = range(2 * workers)
    check(pool.squares(items) == [x * x for x in items])
    pool.stop()


def start_process(order):
    import multiprocessing

    context = multiprocessing.get_context(order["method"])
    process = context.Process(target=increment, args=(41,))
    process.start()
    process.join()
    check(process.exitcode == 0)


def on_pool(order, pool):
    """Runs an operation which needs a pool; returns seconds."""
    operation, target, size = order["operation"], order["seconds"], order["size"]
    if operation == "apply":
        return per_operation(target, lambda: check(pool.apply(add, 2, 7) == 9))
    if operation == "echo":
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        expected = echo(data)
        check(pool.apply(echo, data) == expected)
        return per_operation(target, lambda: check(pool.apply(echo, data)[0] == 0xFF))
    if operation == "map":
        items = list(range(size))
        check(pool.squares(items) == [x * x for x in items])
        return per_operation(target, lambda: pool.squares(items))
    check(pool.increments(100) == list(range(1, 101)))
    if operation == "tiny":
        return per_operation(target, lambda: check(len(pool.increments(size)) == size))
    if operation == "tiny_once":
        return seconds(lambda: check(len(pool.increments(size)) == size))
    if operation == "primes":
        return seconds(lambda: check(pool.primes(order["spans"]) == size))
    if operation == "hold":
        print(json.dumps({"worker": pool.apply(os.getpid)}), flush=True)
        sys.stdin.readline()
        return 0
    raise ValueError(operation)


def run(order):
    workers = order["workers"]
    if order["operation"] == "process":
        start_process(order)
        return per_operation(order["seconds"], lambda: start_process(order))
    # The first pool may start a fork server and the like, which stay.
    if order["operation"] == "cycles":
        return per_operation(order["seconds"], lambda: cycle(order, workers))
    if order["operation"] == "cycle_once":
        cycle(order, 1)
        return seconds(lambda: cycle(order, workers))
    pool = POOLS[order["library"]](order, workers)
    result = on_pool(order, pool)
    pool.stop()
    return result


def peak():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main():
    result = run(json.loads(sys.argv[1]))
    print(json.dumps({"seconds": result, "peak": peak()}), flush=True)


if __name__ == "__main__":
    main()
