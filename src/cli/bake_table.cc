#include "cli/bake_table.h"

#include <fmt/core.h>

#include "cli/environment.h"
#include "cli/wrap.h"

namespace bakestone::cli {
namespace {

const AnsweredQuestion* FindAnswer(const Evaluation& evaluation, const std::string& id) {
  for (const AnsweredQuestion& answer : evaluation.answers) {
    if (answer.id == id) return &answer;
  }
  return nullptr;
}

std::string Percent(const KindTally& tally) {
  return fmt::format("{:>3} of {:>3}  {:>3.0f} %", tally.right, tally.asked, tally.Share() * 100);
}

std::string Row(std::string_view label, std::string_view before, std::string_view after,
                std::string_view change = {}) {
  std::string row = fmt::format("{:<40} {:>18} {:>18} {:>10}", label, before, after, change);
  row.erase(row.find_last_not_of(' ') + 1);
  return row + "\n";
}

int64_t DeclinedThoughAnswerable(const Evaluation& evaluation) {
  return evaluation.Total().declined - evaluation.Tally(QuestionKind::kUnanswerable).declined;
}

// Fact for a label: one line of the second half of the table.
std::string Fact(std::string_view label, const std::string& text) {
  return fmt::format("{:<40} {}\n", label, text);
}

std::string QuestionRows(const Evaluation& before, const Evaluation& after) {
  static constexpr const char* kLabels[] = {"questions, direct", "questions, situational",
                                            "letters filed", "unanswerable, declined"};
  std::string rows;
  for (int i = 0; i < kNumQuestionKinds; ++i) {
    const auto kind = static_cast<QuestionKind>(i);
    if (after.Tally(kind).asked == 0) continue;
    rows += Row(kLabels[i], Percent(before.Tally(kind)), Percent(after.Tally(kind)));
  }
  rows += Row("answerable, yet declined", std::to_string(DeclinedThoughAnswerable(before)),
              std::to_string(DeclinedThoughAnswerable(after)));
  return rows;
}

std::string TextRows(const Evaluation& before, const Evaluation& after) {
  std::string rows;
  for (size_t i = 0; i < after.texts.size() && i < before.texts.size(); ++i) {
    const ScoredText& a = after.texts[i];
    const ScoredText& b = before.texts[i];
    rows += Row(
        fmt::format("{} '{}', bits/byte", a.general ? "general" : "domain", a.name),
        fmt::format("{:.3f}", b.score.BitsPerByte()), fmt::format("{:.3f}", a.score.BitsPerByte()),
        fmt::format("{:+.1f} %", (a.score.BitsPerByte() / b.score.BitsPerByte() - 1) * 100));
    rows += Row("  perplexity by token", fmt::format("{:.2f}", b.score.Perplexity()),
                fmt::format("{:.2f}", a.score.Perplexity()),
                fmt::format("{:+.1f} %", (a.score.Perplexity() / b.score.Perplexity() - 1) * 100));
  }
  return rows;
}

std::string SideBySide(const BakeReport& report) {
  std::string text;
  for (const std::string& id : report.shown) {
    const AnsweredQuestion* before = FindAnswer(*report.before, id);
    const AnsweredQuestion* after = FindAnswer(*report.after, id);
    if (before == nullptr || after == nullptr) continue;
    text +=
        fmt::format("\n  [{}] {}\n", QuestionKindName(after->kind), Wrap(after->question, "    "));
    text += fmt::format("    base : {}\n", Wrap(before->answer, "           "));
    text += fmt::format("    tuned: {}  ({})\n", Wrap(after->answer, "           "),
                        after->right ? "right" : "wrong: " + after->why);
  }
  return text;
}

std::string Costs(const BakeReport& report) {
  std::string text;
  const double rate = report.train_seconds > 0
                          ? static_cast<double>(report.train_tokens) / report.train_seconds
                          : 0;
  text += Fact("training", fmt::format("{} tokens in {:.0f} s, {:.0f} tokens/s",
                                       report.train_tokens, report.train_seconds, rate));
  text += Fact("wall time", fmt::format("{:.0f} s for all stages ({} of {} reused)", report.seconds,
                                        report.reused_stages, report.stages));
  text +=
      Fact("peak memory", fmt::format("{:.2f} GB", static_cast<double>(report.peak_bytes) * 1e-9));
  text += Fact("energy", fmt::format("{:.1f} Wh ({})", report.joules / 3600,
                                     report.joules_measured
                                         ? "measured by the processor"
                                         : "estimated from processor time, 8 W a busy core"));
  text += Fact("sizes", fmt::format("base {:.1f} MB, {} {:.1f} MB",
                                    static_cast<double>(report.base_bytes) * 1e-6,
                                    report.result_is_adapter ? "adapter" : "model",
                                    static_cast<double>(report.result_bytes) * 1e-6));
  for (const LicensedPart& part : report.parts) {
    text += Fact("licence of " + part.name,
                 fmt::format("{} ({})", part.licence.id, LicenceKindName(part.licence.kind)));
  }
  text += Fact("licence of the result", fmt::format("{} ({})", report.licence.licence.id,
                                                    LicenceKindName(report.licence.licence.kind)));
  for (const std::string& line : report.licence.obligations) text += "    " + line + "\n";
  for (const std::string& line : report.licence.warnings) text += "    warning: " + line + "\n";
  return text;
}

// `text` as one word of a shell's command line.
std::string ShellWord(const std::string& text) {
  static constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%,";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

// What to type next: as the program was called, so that it can be copied.
std::string Commands(const BakeReport& report, const std::string& quantize) {
  const std::string program = ShellWord(ProgramName());
  const std::string model = ShellWord(report.model.string()) +
                            (quantize.empty() ? "" : " --quantize " + ShellWord(quantize));
  const std::string result = report.result.string();
  std::filesystem::path book = std::filesystem::path(report.recipe).parent_path();
  if (book.empty()) book = std::filesystem::current_path();
  std::string text;
  const std::string run =
      report.result_is_adapter ? model + " --adapter " + ShellWord(result) : ShellWord(result);
  const std::string serve = report.result_is_adapter
                                ? model + " --adapter " + ShellWord(report.name + "=" + result)
                                : ShellWord(result);
  text += fmt::format("\nchat with it       {} run {}\n", program, run);
  text += fmt::format("serve it           {} serve {}\n", program, serve);
  text += fmt::format("bake your own      cp -r {} ~/my-handbook\n", ShellWord(book.string()));
  text += fmt::format("                   ({}give it a name in the recipe)\n",
                      std::filesystem::exists(book / "README.md")
                          ? "its README.md says what to write into it; "
                          : "");
  text += fmt::format("                   {} bake ~/my-handbook/{}\n", program,
                      ShellWord(std::filesystem::path(report.recipe).filename().string()));
  return text;
}

}  // namespace

std::string BakeTable(const BakeReport& report, const std::string& quantize) {
  std::string text = fmt::format("\n{} on {}\n\n", report.name, report.base);
  if (report.before && report.after) {
    text += Row("", "base", "tuned", "change");
    text += QuestionRows(*report.before, *report.after);
    text += TextRows(*report.before, *report.after);
    text += SideBySide(report);
    text += "\n";
  }
  text += Costs(report);
  if (!report.served_answer.empty()) {
    text += fmt::format("\nasked through the server: {}\n  {}\n",
                        Wrap(report.served_question, "  "), Wrap(report.served_answer, "  "));
  }
  return text + Commands(report, quantize);
}

}  // namespace bakestone::cli
