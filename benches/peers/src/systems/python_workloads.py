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


END = 1 << 62
TRIAL = 300
WARM_UP = 4
PERIOD = 1000


class Shared:
    """What two processes share; see paired.rs."""

    def __init__(self):
        import multiprocessing

        self.lock = multiprocessing.Lock()
        self.counter = multiprocessing.RawValue("Q", 0)
        self.value = multiprocessing.Value("Q", 0)
        self.events = [multiprocessing.Event() for _ in range(2)]
        self.semaphores = [multiprocessing.Semaphore(0) for _ in range(2)]
        self.result = multiprocessing.RawValue("Q", 0)

    def take_lock(self):
        with self.lock:
            pass

    def count(self, more):
        with self.lock:
            self.counter.value += more
            return self.counter.value

    def update(self):
        with self.value.get_lock():
            self.value.value += 1

    def take(self, event):
        event.wait()
        event.clear()


def answer_counting(shared):
    times = 1
    while shared.count(1) < END:
        times += 1
    shared.result.value = times


def answer_events(shared, rounds):
    there, back = shared.events
    for _ in range(rounds):
        shared.take(there)
        back.set()


def answer_semaphores(shared, rounds):
    there, back = shared.semaphores
    for _ in range(rounds):
        there.acquire()
        back.release()


def beside(job, args, own):
    """Runs `own` while another process does the job."""
    import multiprocessing

    other = multiprocessing.Process(target=job, args=args, daemon=True)
    other.start()
    result = own()
    other.join()
    check(other.exitcode == 0)
    return result


def contended(shared, target):
    """As in paired.rs."""
    own = 0

    def count(times):
        nonlocal own
        for _ in range(times):
            total = shared.count(1)
            own += 1
        return total

    def contend():
        alone = 0
        while count(1) == alone + 1:
            alone += 1
        start = time.perf_counter()
        while time.perf_counter() - start < target / 4:
            count(100)
        start, first = time.perf_counter(), count(1)
        while time.perf_counter() - start < target:
            count(500)
        turns = count(1) - first
        return (time.perf_counter() - start) / turns

    def counting():
        each = contend()
        shared.count(END)
        return each

    each = beside(answer_counting, (shared,), counting)
    check(shared.count(0) == END + own + shared.result.value)
    return each


def exchange(shared, target, job, one_round):
    def rounds(count):
        def own():
            for _ in range(count // 4):
                one_round()
            start = time.perf_counter()
            for _ in range(count):
                one_round()
            return (time.perf_counter() - start) / count

        return beside(job, (shared, count + count // 4), own)

    return rounds(max(int(target / rounds(TRIAL)), TRIAL))


def between_two(order):
    """Runs an operation of paired.rs; returns seconds."""
    operation, target = order["operation"], order["seconds"]
    shared = Shared()
    if operation == "lock":
        return per_operation(target, shared.take_lock)
    if operation == "update":
        return per_operation(target, shared.update)
    if operation == "contend":
        return contended(shared, target)
    if operation == "events":
        there, back = shared.events

        def one_round():
            there.set()
            shared.take(back)

        return exchange(shared, target, answer_events, one_round)
    there, back = shared.semaphores

    def one_round():
        there.release()
        back.acquire()

    return exchange(shared, target, answer_semaphores, one_round)


def fill(view):
    """Writes what arrays.rs does."""
    import array

    pattern = array.array("d", range(PERIOD)) * 100
    for start in range(0, len(view), len(pattern)):
        part = view[start : start + len(pattern)]
        part[:] = memoryview(pattern)[: len(part)]


def keep_view(raw):
    """Lets the tasks of a worker find the array."""
    global view
    view = memoryview(raw).cast("B").cast("d")


def sum_chunk(bounds):
    return sum(view[slice(*bounds)])


def mirror_chunk(bounds):
    import array

    part = view[slice(*bounds)]
    part[:] = array.array("d", [PERIOD - value for value in part])


def in_place(order):
    """Runs an operation of arrays.rs on a RawArray; returns seconds."""
    import multiprocessing

    size, chunk = order["size"], order["chunk"]
    raw = multiprocessing.RawArray("d", size)
    keep_view(raw)
    fill(view)
    bounds = [(start, min(start + chunk, size)) for start in range(0, size, chunk)]
    times = 0
    with multiprocessing.Pool(order["workers"], keep_view, (raw,)) as pool:
        if order["operation"] == "sum":
            expected = sum(view)
            operation = lambda: check(sum(pool.map(sum_chunk, bounds)) == expected)
        else:

            def operation():
                nonlocal times
                times += 1
                pool.map(mirror_chunk, bounds)

        for _ in range(WARM_UP):
            operation()
        seconds = per_operation(order["seconds"], operation)
        pool.close()
        pool.join()
    if times % 2 == 1:
        check(view[1] == PERIOD - 1)
    else:
        check(view[1] == 1)
    return seconds


def ends(segment):
    view = segment.buf.cast("d")
    result = view[0] + view[-1]
    view.release()
    return result


def send(order):
    """Hands a named segment to tasks, which is what travels here; returns seconds."""
    import multiprocessing
    from multiprocessing.shared_memory import SharedMemory

    size = order["size"]
    segment = SharedMemory(create=True, size=8 * size)
    try:
        with segment.buf.cast("d") as view:
            fill(view)
        expected = (size - 1) % PERIOD
        with multiprocessing.Pool(order["workers"]) as pool:
            operation = lambda: check(pool.apply(ends, (segment,)) == expected)
            return per_operation(order["seconds"], operation)
    finally:
        segment.close()
        segment.unlink()


def channels(order):
    """Runs an operation of python_channels.py; returns seconds."""
    import python_channels

    return python_channels.ALL[order["operation"]](order)


ALONE = {
    "lock": between_two,
    "contend": between_two,
    "update": between_two,
    "events": between_two,
    "semaphores": between_two,
    "sum": in_place,
    "mirror": in_place,
    "send": send,
    "queue": channels,
    "pipe": channels,
    "listener_unix": channels,
    "listener_tcp": channels,
    "manager_get": channels,
    "manager_set": channels,
    "manager_clients": channels,
}


def run(order):
    workers = order["workers"]
    if order["operation"] in ALONE:
        return ALONE[order["operation"]](order)
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
