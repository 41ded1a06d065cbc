#include "lib/box/totals.h"
#include "lib/pprof/encoder.h"

namespace heapflare::pprof {
namespace {

using base::TextWriter;

void Origin(const box::Reader& box, TextWriter* text) {
  const box::Header& header = box.header();
  text->Add("heapflare ")
      .AddPrintable({header.recorder_version,
                     strnlen(header.recorder_version, sizeof(header.recorder_version))})
      .Add(": heap of ")
      .AddPrintable(box.program())
      .Add(" (pid ")
      .AddNumber(header.pid)
      .Add(')');
}

void Taken(const EncodeOptions& options, TextWriter* text) {
  text->Add("taken: ").Add(options.reason);
  if (options.usage != box::kUnknown) text->Add(", charge ").AddSize(options.usage);
  if (options.limit != box::kUnknown) text->Add(" of ").AddSize(options.limit);
}

void Requested(const EncodeOptions& options, TextWriter* text) {
  text->Add("straw: a request of ").AddSize(options.straw.bytes);
  text->Add(" is larger than the headroom; it is included, labelled request=straw");
}

void Sampling(const box::Reader& box, TextWriter* text) {
  const box::Header& header = box.header();
  if (header.interval == 1) {
    text->Add("every allocation recorded");
  } else if (header.interval == 0) {
    text->Add("sampling is off");
  } else {
    text->Add("one sample per ").AddSize(header.interval).Add(" on average");
  }
  const box::Totals totals = box::SumTallies(header);
  text->Add(": ").AddNumber(totals.samples_taken).Add(" samples, ");
  text->AddNumber(totals.samples_live()).Add(" live");
}

void Error(const LiveError& error, TextWriter* text) {
  text->Add("live heap ").AddSize(error.live_bytes());
  if (error.Bytes() == 0) {
    text->Add(", no sampling error");
    return;
  }
  text->Add(", standard error ").AddSize(error.Bytes()).Add(" (");
  error.AddPercent(text);
  text->Add("): 19 times in 20 the truth is within two of these");
}

void Thinned(const box::Reader& box, TextWriter* text) {
  const box::Header& header = box.header();
  text->Add("thinned ").AddNumber(header.losses.thinnings);
  text->Add(" times from one sample per ").AddSize(header.configured_interval);
  text->Add(" because the box was filling up; estimates stay unbiased");
}

void Lost(const box::Reader& box, TextWriter* text) {
  const box::Losses& losses = box.header().losses;
  text->Add("lost: ").AddNumber(losses.samples).Add(" samples (");
  text->AddSize(box::WholeBytes(losses.sample_bytes)).Add("), ");
  text->AddNumber(losses.missed_frees).Add(" frees seen late");
}

void Shapes(const box::Reader& box, TextWriter* text) {
  const box::Losses& losses = box.header().losses;
  text->Add("stacks: ").AddNumber(losses.truncated_stacks).Add(" samples truncated, ");
  text->AddNumber(losses.unwind_failures).Add(" not unwound to the end, ");
  text->AddNumber(losses.folded_stacks).Add(" folded into [other stacks]");
}

}  // namespace

bool Comment(const box::Reader& box, const EncodeOptions& options, const LiveError& error,
             int index, base::TextWriter* text) {
  const box::Losses& losses = box.header().losses;
  // Each line with the condition under which it has something to say.
  const bool present[] = {
      true,
      options.reason != nullptr,
      options.straw.bytes > 0,
      true,
      true,
      losses.thinnings > 0,
      losses.samples + losses.missed_frees > 0,
      losses.truncated_stacks + losses.unwind_failures + losses.folded_stacks > 0,
  };
  int line = 0;
  for (const int count = static_cast<int>(std::size(present)); line < count; ++line) {
    if (present[line] && index-- == 0) break;
  }
  text->Clear();
  switch (line) {
    case 0:
      Origin(box, text);
      return true;
    case 1:
      Taken(options, text);
      return true;
    case 2:
      Requested(options, text);
      return true;
    case 3:
      Sampling(box, text);
      return true;
    case 4:
      Error(error, text);
      return true;
    case 5:
      Thinned(box, text);
      return true;
    case 6:
      Lost(box, text);
      return true;
    case 7:
      Shapes(box, text);
      return true;
    default:
      return false;
  }
}

}  // namespace heapflare::pprof
