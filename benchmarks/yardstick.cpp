// The C++ yardstick: the same stages as the simulator's as a plain event loop, without a ring.
//
// std::priority_queue of events; first-come servers for the vCPU, the vhost worker and LIO's two
// kworkers, `lanes` for the disk with exponential service. Every request passes ten events: submit,
// kick, worker fetch, LIO submission hop, disk, LIO completion hop, worker completion, interrupt,
// handler, done. Latencies go into a histogram. Costs are round numbers in cycles at 2.6 GHz.

#include <algorithm>
#include <cstdint>
#include <queue>
#include <random>
#include <vector>

namespace {

enum Stage { SUBMIT, KICK, FETCH, ISSUE, DISK, REPORT, COMPLETE, INTERRUPT, HANDLER, DONE };

struct Event {
    int64_t time;
    int64_t order;
    int32_t stage;
    int32_t request;
};

struct Later {
    bool operator()(const Event &a, const Event &b) const {
        return a.time != b.time ? a.time > b.time : a.order > b.order;
    }
};

struct Server {
    int64_t free_at = 0;
    int64_t serve(int64_t now, int64_t cycles) {
        free_at = std::max(now, free_at) + cycles;
        return free_at;
    }
};

}  // namespace

// Runs `number_ios` requests at `iodepth`; returns how many events that took. The simulated cycles
// and the sum of the latencies go to out[0] and out[1], so that nothing can be optimised away.
extern "C" int64_t yardstick(int64_t number_ios, int64_t iodepth, int64_t lanes,
                             int64_t service_cycles, int64_t seed, int64_t *out) {
    std::priority_queue<Event, std::vector<Event>, Later> calendar;
    std::mt19937_64 generator(seed);
    std::exponential_distribution<double> exponential(1.0 / service_cycles);
    Server vcpu, worker, submission, completion;
    std::vector<int64_t> lane_free(lanes, 0), began(iodepth, 0), histogram(1856, 0);
    int64_t order = 0, events = 0, issued = 0, now = 0, total = 0;

    auto at = [&](int64_t time, Stage stage, int32_t request) {
        calendar.push({time, order++, stage, request});
    };
    for (int32_t slot = 0; slot < iodepth && issued < number_ios; ++slot, ++issued)
        at(0, SUBMIT, slot);
    while (!calendar.empty()) {
        const Event event = calendar.top();
        calendar.pop();
        ++events;
        now = event.time;
        const int32_t r = event.request;
        switch (event.stage) {
        case SUBMIT:
            began[r] = now;
            at(vcpu.serve(now, 4420), KICK, r);
            break;
        case KICK:
            at(now + 3300, FETCH, r);
            break;
        case FETCH:
            at(worker.serve(now, 3250), ISSUE, r);
            break;
        case ISSUE:
            at(submission.serve(now + 5200, 1105), DISK, r);
            break;
        case DISK: {
            auto lane = std::min_element(lane_free.begin(), lane_free.end());
            *lane = std::max(now, *lane) + static_cast<int64_t>(exponential(generator));
            at(*lane, REPORT, r);
            break;
        }
        case REPORT:
            at(completion.serve(now + 5200, 1105), COMPLETE, r);
            break;
        case COMPLETE:
            at(worker.serve(now, 1820), INTERRUPT, r);
            break;
        case INTERRUPT:
            at(now + 3640, HANDLER, r);
            break;
        case HANDLER:
            at(vcpu.serve(now, 3640), DONE, r);
            break;
        default: {
            const int64_t latency = now - began[r];
            total += latency;
            int bits = 0;
            for (int64_t v = latency; v > 127; v >>= 1) ++bits;
            ++histogram[std::min<int64_t>(1855, bits * 64 + (latency >> bits))];
            if (issued < number_ios) {
                ++issued;
                at(now, SUBMIT, r);
            }
        }
        }
    }
    out[0] = now;
    out[1] = total + histogram[0];
    return events;
}
