"""A vhost-scsi simulator in 120 lines; small-simulator.md explains it. Times are cycles."""

import simpy

COSTS = dict(io_submit=780, io_getevents=780, submit=2860, complete=2340, exit=1000, signal=520,
             wakeup=780, back=1000, inject=3640, entry=650, leave=650, wake=5200, pop=2340,
             hand_over=910, answer=1820, hop=5200, lio_submit=1105, lio_complete=1105)  # fmt: skip


def need_event(event, new, old):  # vring_need_event(): has the index passed the event?
    return (new - event - 1) % 65536 < (new - old) % 65536


class Machine:
    """fio with `ios` requests at `depth`, a disk of `lanes` that takes `service` cycles each."""

    def __init__(self, depth, ios, service, lanes=32, costs=COSTS):
        self.env, self.depth, self.ios, self.service = simpy.Environment(), depth, ios, service
        self.cost, self.wait = costs, lambda name: self.env.timeout(costs[name])
        self.requests, self.completed, self.reaped = [], 0, 0
        self.avail, self.fetched, self.avail_event = [], 0, 0  # the ring, and the private indices
        self.used, self.seen, self.used_event = [], 0, 0
        self.vector, self.works, self.answers, self.asleep = self.env.event(), [], [], True
        self.submit, self.disk, self.reply = (simpy.Resource(self.env, n) for n in (1, lanes, 1))
        self.env.run(self.env.process(self.thread()))

    def thread(self):  # the guest: fio's do_io(), io_submit() and the driver below it
        while self.reaped < self.ios:
            yield from self.cpu(0)
            if len(self.requests) < min(self.ios, self.reaped + self.depth):
                self.requests.append(request := {'arrive': self.env.now})
                yield from self.cpu(self.cost['io_submit'] + self.cost['submit'])
                self.avail.append(request)
                yield self.env.timeout(0)  # C: publish, then look
                if need_event(self.avail_event, len(self.avail), len(self.avail) - 1):
                    yield self.env.timeout(self.cost['exit'] + self.cost['signal'])
                    more = self.queue_work('kick', self.cost['wakeup']) + self.cost['back']
                    yield self.env.timeout(more)
            else:
                yield from self.cpu(self.cost['io_getevents'])
                while self.reaped == self.completed:  # asleep
                    yield self.vector
                    yield from self.handler()
                self.reaped += 1

    def cpu(self, cycles):  # the thread runs for so long; an interrupt takes the CPU from it
        while self.vector.triggered or cycles:
            began = self.env.now
            yield self.vector | self.env.timeout(cycles)
            cycles -= self.env.now - began
            if self.vector.triggered:
                yield from self.handler()

    def handler(self):  # virtscsi_vq_done()
        self.vector = self.env.event()
        yield self.wait('entry')
        while self.seen < len(self.used):
            request, self.seen = self.used[self.seen], self.seen + 1
            yield self.wait('complete')
            request['complete'], self.completed = self.env.now, self.completed + 1
            if self.seen == len(self.used):
                self.used_event = self.seen
                yield self.env.timeout(0)  # D: ask for the next interrupt, then look again
                self.used_event = 0 if self.seen < len(self.used) else self.used_event
        yield self.wait('leave')

    def queue_work(self, work, cost=0):  # vhost_vq_work_queue(): `cost` to wake one that sleeps
        slept, self.asleep = self.asleep, False
        self.works += [work] if work not in self.works else []
        if slept:
            self.env.process(self.worker(cost + self.cost['wake']))
        return cost * slept

    def worker(self, delay):  # the host: vhost_run_work_list()
        yield self.env.timeout(delay)
        while self.works:
            yield from self.fetch() if self.works.pop(0) == 'kick' else self.answer()
        self.asleep = True

    def fetch(self):  # vhost_scsi_handle_vq()
        while self.fetched < len(self.avail):
            request, self.fetched = self.avail[self.fetched], self.fetched + 1
            request['fetch'] = self.env.now
            yield self.env.timeout(self.cost['pop'] + self.cost['hand_over'])
            self.env.process(self.command(request))
            if self.fetched == len(self.avail):
                self.avail_event = self.fetched
                yield self.env.timeout(0)  # C: ask for the next kick, then look again

    def command(self, request):  # LIO and the disk: a kworker, a lane of the medium, a kworker
        yield from self.kworker(self.submit, self.cost['lio_submit'], self.cost['hop'])
        request['issue'] = self.env.now
        yield from self.kworker(self.disk, self.service, 0)
        request['done'] = self.env.now
        yield from self.kworker(self.reply, self.cost['lio_complete'], self.cost['hop'])
        self.answers.append(request)
        self.queue_work('answer')

    def kworker(self, thread, cycles, hop):  # first in first out; one that sleeps is woken
        hop = 0 if thread.count else hop
        with thread.request() as turn:
            yield turn
            yield self.env.timeout(hop + cycles)

    def answer(self):  # vhost_scsi_complete_cmd_work()
        batch, self.answers = self.answers[::-1], []
        for request in batch:
            yield self.wait('answer')
            request['used'] = self.env.now
            self.used.append(request)
        yield self.env.timeout(0)  # D: publish, then look
        if need_event(self.used_event, len(self.used), len(self.used) - len(batch)):
            arrival = self.wait('inject')  # what is pending by then merges with it
            arrival.callbacks.append(lambda _: self.vector.triggered or self.vector.succeed())


if __name__ == '__main__':
    for depth in (1, 4, 16, 64):
        found = Machine(depth, ios=2000, service=26_000).requests
        print(depth, sum(r['complete'] - r['arrive'] for r in found) / len(found) / 2600, 'µs')
