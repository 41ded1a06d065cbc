#include "lib/recorder/alarms.h"

#include "lib/recorder/ramp_stop.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/requests.h"

namespace heapflare::recorder {

constinit Ladder ladder;

namespace {

using box::kUnknown;

constexpr uint64_t kMiB = 1 << 20;

constinit int64_t last_eta = 0;

void NameRung(const Rung& rung, base::TextWriter* reason) {
  reason->Add("rung-");
  if (rung.percent == 0) {
    // 1536MiB, or plain bytes where that would round.
    if (rung.bytes % kMiB == 0) {
      reason->AddNumber(rung.bytes / kMiB).Add("MiB");
    } else {
      reason->AddNumber(rung.bytes);
    }
    return;
  }
  reason->AddNumber(rung.percent / 100);
  if (rung.percent % 100 != 0) reason->Add('.').AddNumber(rung.percent % 100, 2);
  reason->Add("pct");
}

}  // namespace

void StepLadder(const Measurement& now, int64_t time) {
  if (now.value == kUnknown) return;
  const int index = ladder.Step(now.value, now.limit, time);
  if (index < 0) return;
  DumpRequest request;
  NameRung(ladder.rung(static_cast<uint32_t>(index)), &request.reason);
  request.usage = now.value;
  request.limit = now.limit;
  NoteEvent(box::EventKind::kRung, ladder.Threshold(static_cast<uint32_t>(index), now.limit),
            now.value, now.limit, request.reason.view(), now.usage);
  // Before it can be done.
  request.ramp_stop = ramp_stop.Begin();
  if (!requests.Leave(request)) ramp_stop.End(request.ramp_stop);
}

void WantEtaDump(const Measurement& now, int64_t time, double slope) {
  const uint64_t seconds = recorder.settings.eta_seconds;
  if (seconds == 0 || now.limit == kUnknown || now.value == kUnknown || now.value >= now.limit ||
      slope <= 0) {
    return;
  }
  const double left = static_cast<double>(now.limit - now.value) / slope;
  if (left > static_cast<double>(seconds) ||
      (last_eta != 0 && time - last_eta < Ladder::kCooldown)) {
    return;
  }
  last_eta = time;
  DumpRequest request;
  request.reason.Add("eta");
  request.usage = now.value;
  request.limit = now.limit;
  requests.Leave(request);
}

void ForgetAlarms() { last_eta = 0; }

}  // namespace heapflare::recorder
