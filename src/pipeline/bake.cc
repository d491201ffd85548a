#include "pipeline/bake.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/sha256.h"
#include "data/source_plan.h"
#include "engine/chat.h"
#include "format/gguf_adapter.h"
#include "format/peft.h"
#include "pipeline/ask_server.h"
#include "pipeline/lineage.h"
#include "server/server.h"
#include "train/export.h"
#include "train/trained.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

std::string KeyOf(std::initializer_list<std::string_view> parts) {
  Sha256 sha;
  for (const std::string_view part : parts) sha.Update(part).Update(std::string_view("\0", 1));
  return ToHex(sha.Finish());
}

// How a source is read, as far as it says more than its path.
std::string ReadingKey(const DataSource& source) {
  std::string key;
  if (source.format != "auto") key += "|format " + source.format;
  if (!source.group.empty()) key += "|group " + source.group;
  for (const auto& [field, column] : source.columns) key += "|column " + field + "=" + column;
  if (source.heldout > 0) key += fmt::format("|heldout {}", source.heldout);
  if (source.weight != 1) key += fmt::format("|weight {}", source.weight);
  if (source.duplicates != DuplicatePolicy::kKeep) key += fmt::format("|dedupe {}", static_cast<int>(source.duplicates));
  if (source.personal_data == PersonalDataPolicy::kMask) key += "|mask";
  if (source.overlong == OverlongPolicy::kDrop) key += "|drop";
  return key;
}

std::string SourceKey(const DataSource& source) {
  return "|" + source.name + "|" + ToHex(HashOfFile(source.path)) + ReadingKey(source);
}

// Shows a stage's training to the bake's observer and asks the probe now and then.
class StageObserver : public TrainObserver {
 public:
  StageObserver(BakeObserver& observer, const Model& model, Exec& exec, const QuestionSet* questions,
                const EvalRecipe& eval, std::string label, double probe_seconds)
      : observer_(observer), model_(model), exec_(exec), questions_(questions), eval_(eval),
        label_(std::move(label)), probe_seconds_(probe_seconds), last_probe_(Clock::now()) {
    if (questions == nullptr || probe_seconds <= 0) return;
    const auto direct = questions->OfKind(QuestionKind::kDirect);
    if (!direct.empty()) probe_ = direct[direct.size() / 2];
  }

  void OnStep(const StepReport& report) override {
    last_ = report;
    const double rate = report.seconds > 0 ? static_cast<double>(report.tokens) / report.seconds : 0;
    observer_.OnProgress(label_, report.step, report.num_steps, "steps",
                         fmt::format("loss {:.3f}  {:.0f} tokens/s", report.loss, rate));
  }

  void Between(Adapter& adapter) override {
    if (probe_ == nullptr) return;
    if (std::chrono::duration<double>(Clock::now() - last_probe_).count() < probe_seconds_) return;
    adapter.Publish();
    Json messages = Json::parse(probe_->messages);
    if (!eval_.system.empty()) {
      messages.insert(messages.begin(), Json{{"role", "system"}, {"content", eval_.system}});
    }
    AnsweredQuestion answered;
    answered.id = probe_->id;
    answered.question = probe_->text;
    answered.answer = AnswerGreedily(model_, &adapter, exec_, RenderChat(model_, messages).tokens,
                                     eval_.max_tokens);
    answered.right = Judge(*questions_, *probe_, answered.answer).right;
    observer_.OnProbe(answered, last_.seconds);
    last_probe_ = Clock::now();
  }

  bool Cancelled() override { return observer_.Cancelled(); }

 private:
  BakeObserver& observer_;
  const Model& model_;
  Exec& exec_;
  const QuestionSet* questions_;
  const EvalRecipe& eval_;
  const std::string label_;
  const double probe_seconds_;
  Clock::time_point last_probe_;
  const Question* probe_ = nullptr;
  StepReport last_;
};

class BakeRun {
 public:
  BakeRun(const Recipe& recipe, const BakeOptions& options, const KernelTable& kernels,
          ThreadPool& pool, BakeObserver& observer)
      : recipe_(recipe), options_(options), kernels_(kernels), pool_(pool), observer_(observer),
        lineage_(options.folder), model_(Model::Load(options.model, kernels, pool, options.load)),
        base_hash_(ToHex(model_->file_hash)),
        layout_(LayoutOf(*model_, recipe)) {
    encode_chat_ = [this](const Json& messages, bool prompt, const Json* tools) {
      return RenderChat(*model_, messages, prompt, tools).tokens;
    };
    if (!recipe.eval.questions.empty()) {
      questions_ = ReadQuestions(recipe.eval.questions, recipe.eval.facts);
    }
  }

  BakeReport Run() {
    ForgetFrom();
    report_.name = recipe_.name;
    report_.base = options_.model.stem().string();
    report_.recipe = recipe_.file.string();
    report_.folder = options_.folder;
    CheckLicences();
    CheckData();
    if (!options_.train_only) report_.before = EvaluateStage("before", BeforeKey(), nullptr);
    TrainStages();
    if (!options_.train_only) {
      report_.after = EvaluateStage("after", KeyOf({"after", trained_key_, BeforeKey()}),
                                    ServedAdapter());
    }
    Export();
    if (!options_.train_only) Serve();
    ChooseShown();
    return std::move(report_);
  }

 private:
  // Runs `work` unless the stage is done; work returns the files that it wrote.
  template <class Work>
  void Stage(const std::string& name, const std::string& what, const std::string& key,
             const Work& work) {
    ++report_.stages;
    if (lineage_.Done(name, key)) {
      ++report_.reused_stages;
      observer_.OnReused(name);
    } else {
      observer_.OnStage(name, what);
      if (observer_.Cancelled()) Throw(ErrorCode::kCancelled, "stopped before stage '{}'", name);
      const EnergyMeter energy;
      const auto start = Clock::now();
      const std::vector<std::string> files = work();
      StageRecord record;
      record.seconds = std::chrono::duration<double>(Clock::now() - start).count();
      record.joules = energy.Joules();
      record.joules_measured = energy.measured();
      record.peak_bytes = PeakMemoryBytes();
      lineage_.Record(name, key, files, std::move(record));
    }
    const StageRecord& record = *lineage_.Find(name);
    report_.seconds += record.seconds;
    report_.joules += record.joules;
    report_.joules_measured = record.joules_measured;
    report_.peak_bytes = std::max(report_.peak_bytes, record.peak_bytes);
  }

  void ForgetFrom() {
    if (options_.from.empty()) return;
    const auto stages = BakeStages(recipe_, options_.train_only);
    const auto first = std::find(stages.begin(), stages.end(), options_.from);
    if (first == stages.end()) {
      Throw(ErrorCode::kInvalidArgument, "--from: expected one of {}; found '{}'",
            fmt::join(stages, ", "), options_.from);
    }
    for (auto stage = first; stage != stages.end(); ++stage) {
      lineage_.Forget(*stage);
      std::filesystem::remove_all(options_.folder / ("train-" + *stage));
    }
  }

  void CheckLicences() {
    report_.parts.push_back({"base " + report_.base, ParseLicence(model_->licence)});
    std::string key = "licence|" + report_.parts[0].licence.id;
    std::vector<LicensedPart> data;
    for (const std::string& name : TrainedSources()) {
      const DataSource& source = recipe_.Source(name);
      data.push_back({"data '" + name + "'", ParseLicence(source.licence)});
      key += "|" + name + "|" + source.licence;
    }
    report_.licence = DeriveLicence(report_.parts[0], data);
    report_.parts.insert(report_.parts.end(), data.begin(), data.end());
    Stage("licence", "what base and data allow", KeyOf({key}), [&] {
      Json json = {{"result", report_.licence.licence.id},
                   {"kind", LicenceKindName(report_.licence.licence.kind)},
                   {"parts", Json::array()},
                   {"reasons", report_.licence.reasons},
                   {"obligations", report_.licence.obligations},
                   {"warnings", report_.licence.warnings}};
      for (const LicensedPart& part : report_.parts) {
        json["parts"].push_back({{"name", part.name},
                                 {"licence", part.licence.id},
                                 {"kind", LicenceKindName(part.licence.kind)}});
        observer_.OnLine(fmt::format("{}: {}", part.name, part.licence.id));
      }
      return WriteJson("licence.json", json);
    });
    for (const std::string& warning : report_.licence.warnings) observer_.OnWarning(warning);
  }

  // Reads everything that will be trained on now, so that a bad line is found before hours of work.
  void CheckData() {
    data_key_ = "data|" + base_hash_;
    for (const std::string& name : TrainedSources()) {
      data_key_ += SourceKey(recipe_.Source(name));
    }
    for (const StageRecipe& stage : recipe_.stages) data_key_ += "|" + StageKey(recipe_, stage);
    data_key_ = KeyOf({data_key_});
    for (const StageRecipe& stage : recipe_.stages) {
      stage_data_.push_back(ReadStageData(*model_, encode_chat_, recipe_, stage,
                                          {.pool = &pool_,
                                           .rejects = options_.folder / "rejected",
                                           .cache = options_.sample_cache}));
    }
    Stage("data", "what will be learned", data_key_, [&] {
      ShowSources();
      Json json = Json::array();
      for (size_t i = 0; i < recipe_.stages.size(); ++i) {
        const StageData& data = stage_data_[i];
        const StageRecipe& stage = recipe_.stages[i];
        json.push_back({{"stage", stage.name},
                        {"samples", data.train.size()},
                        {"tokens", data.train.counts().tokens},
                        {"trained_tokens", data.train.counts().trained},
                        {"cut", data.train.counts().cut},
                        {"heldout_samples", data.heldout.size()},
                        {"replay_samples", data.replay.size()},
                        {"replay_tokens", data.replay.counts().tokens}});
        observer_.OnLine(fmt::format(
            "{}: {} samples, {} tokens, {} of them learned, {} steps{}", stage.name,
            data.train.size(), data.train.counts().tokens, data.train.counts().trained,
            NumSteps(stage, data.train.epoch_size()),
            data.replay.size() == 0
                ? "" : fmt::format("; {} pieces to replay", data.replay.size())));
        if (data.train.counts().cut > 0) {
          observer_.OnWarning(fmt::format("{}: {} samples are longer than {} tokens and lose their "
                                          "end", stage.name, data.train.counts().cut,
                                          stage.sequence_length));
        }
      }
      return WriteJson("data.json", Json{{"sources", DataRecord()}, {"stages", json}});
    });
  }

  // Each source once, and what a person should know of it.
  void ShowSources() {
    std::set<std::string> shown;
    for (const StageData& data : stage_data_) {
      for (const SourceSummary& source : data.sources) {
        if (shown.insert(source.Line()).second) observer_.OnLine(source.Line());
        for (const std::string& warning : source.Warnings()) {
          if (shown.insert(warning).second) observer_.OnWarning(warning);
        }
      }
    }
    std::vector<std::string> unknown;
    for (const std::string& name : TrainedSources()) {
      const DataSource& source = recipe_.Source(name);
      if (source.source.empty() || source.licence.empty()) unknown.push_back(name);
    }
    if (unknown.empty()) return;
    observer_.OnLine(fmt::format("'source' or 'licence' unknown, as the record will say: {}", fmt::join(unknown, ", ")));
  }

  // Where everything that is learned comes from.
  Json DataRecord() const {
    Json record = Json::array();
    const auto known = [](const std::string& text) { return text.empty() ? "unknown" : text; };
    for (const std::string& name : TrainedSources()) {
      const DataSource& source = recipe_.Source(name);
      Json entry = {{"name", name},
                    {"path", source.path.string()},
                    {"sha256", ToHex(HashOfFile(source.path))},
                    {"source", known(source.source)},
                    {"licence", known(source.licence)},
                    {"readings", Json::array()}};
      for (const StageData& data : stage_data_) {
        for (const SourceSummary& summary : data.sources) {
          if (summary.name == name) entry["readings"].push_back(ToJson(summary));
        }
      }
      record.push_back(std::move(entry));
    }
    return record;
  }

  std::string BeforeKey() const {
    const EvalRecipe& eval = recipe_.eval;
    std::string key = fmt::format("eval 1|{}|{}|{}|{}", base_hash_, eval.system, eval.max_tokens,
                                  eval.text_tokens);
    if (questions_) {
      key += "|" + ToHex(HashOfFile(eval.questions)) + "|" + ToHex(HashOfFile(eval.facts));
    }
    for (const auto* names : {&eval.domain, &eval.general}) {
      for (const std::string& name : *names) {
        const DataSource& source = recipe_.Source(name);
        key += "|" + name + "|" + ToHex(HashOfFile(source.path)) + ReadingKey(source);
      }
    }
    return KeyOf({key});
  }

  Evaluation EvaluateStage(const std::string& name, const std::string& key,
                           std::shared_ptr<const Adapter> adapter) {
    const std::string file = name + ".json";
    Stage(name, adapter ? "the tuned model: texts and held-out questions"
                        : "the base: texts and held-out questions", key, [&] {
      std::vector<TextToScore> texts;
      for (const std::string& source : recipe_.eval.domain) {
        texts.push_back({source, TextOf(source), false});
      }
      for (const std::string& source : recipe_.eval.general) {
        texts.push_back({source, TextOf(source), true});
      }
      EvaluateOptions options;
      options.system = recipe_.eval.system;
      options.max_tokens = recipe_.eval.max_tokens;
      options.text_tokens = recipe_.eval.text_tokens;
      options.progress = [&](const std::string& what, int64_t done, int64_t total) {
        observer_.OnProgress(name + " " + what, done, total,
                             what == "questions" ? "answers" : "tokens", "");
      };
      options.cancelled = [&] { return observer_.Cancelled(); };
      return WriteJson(file, ToJson(Evaluate(model_, adapter, kernels_, pool_, texts,
                                             questions_ ? &*questions_ : nullptr, options)));
    });
    const auto path = options_.folder / file;
    return EvaluationFromJson(Json::parse(ReadFile(path), nullptr, false), path.string());
  }

  // As much of a source's text as is scored, of what was held out where it is split.
  std::string TextOf(const std::string& name) {
    constexpr int64_t kBytesPerToken = 64;  // of long pieces, with room to spare
    const int64_t most = std::max<int64_t>(int64_t{4} << 20, recipe_.eval.text_tokens * kBytesPerToken);
    return TextToScoreOf(recipe_.Source(name), most, {.pool = &pool_});
  }

  void TrainStages() {
    masters_ = InitialValues(*model_, layout_, recipe_.seed, kernels_, pool_);
    trained_key_ = KeyOf({"initial", base_hash_, std::to_string(recipe_.seed)});
    Exec exec(kernels_, pool_);
    for (size_t i = 0; i < recipe_.stages.size(); ++i) {
      const StageRecipe& stage = recipe_.stages[i];
      std::string data = StageKey(recipe_, stage);
      for (const std::string& name : stage.data) data += SourceKey(recipe_.Source(name));
      if (stage.replay) data += SourceKey(recipe_.Source(stage.replay->data));
      trained_key_ = KeyOf({trained_key_, data});
      const std::string folder = "train-" + stage.name;
      TrainOptions train = options_.train;
      train.folder = options_.folder / folder;
      const char* what = stage.method == TrainMethod::kPretrain ? "continued pre-training"
                                                                : "supervised fine-tuning";
      const auto work = [&] {
        DropStale(train.folder);
        StageObserver observer(observer_, *model_, exec, questions_ ? &*questions_ : nullptr,
                               recipe_.eval, stage.name,
                               options_.train_only ? 0 : options_.probe_seconds);
        const StageOutcome outcome = TrainStage(*model_, recipe_, stage, stage_data_[i], masters_,
                                                trained_key_, kernels_, pool_, train, observer);
        WriteFileAtomically(train.folder / "summary.json",
                            Json{{"tokens", outcome.last.tokens},
                                 {"seconds", outcome.last.seconds},
                                 {"steps", outcome.last.step}}.dump() + "\n");
        return std::vector<std::string>{folder + "/result.bin", folder + "/summary.json"};
      };
      Stage(stage.name, what, trained_key_, work);
      const Json summary = Json::parse(ReadFile(train.folder / "summary.json"));
      report_.train_tokens += summary.at("tokens").get<int64_t>();
      report_.train_seconds += summary.at("seconds").get<double>();
      masters_ = ReadStageResult(train.folder, trained_key_, layout_);
    }
  }

  // Work of another recipe or other data in the stage's folder is of no use to this one.
  void DropStale(const std::filesystem::path& folder) const {
    if (!HasStageState(folder, trained_key_)) std::filesystem::remove_all(folder);
  }

  std::shared_ptr<const Adapter> ServedAdapter() {
    if (!adapter_) {
      auto adapter = std::make_shared<Adapter>(model_->config, recipe_.name);
      SetAdapter(layout_, masters_, recipe_.lora, adapter.get());
      adapter->Publish();
      adapter_ = std::move(adapter);
    }
    return adapter_;
  }

  void Export() {
    Stage("export", "adapter as a PEFT folder and as GGUF", KeyOf({"export", trained_key_}), [&] {
      const AdapterFile file =
          MakeAdapterFile(*model_, layout_, masters_, recipe_.lora, recipe_.name);
      WritePeftAdapter(file, options_.folder / "adapter");
      const ModelConfig& config = model_->config;
      WriteGgufAdapter(file, {config.num_heads, config.num_kv_heads, config.head_dim},
                       options_.folder / "adapter.gguf");
      return std::vector<std::string>{"adapter/adapter_config.json",
                                      "adapter/adapter_model.safetensors", "adapter.gguf"};
    });
    report_.base_bytes = static_cast<int64_t>(std::filesystem::file_size(options_.model));
    report_.adapter_bytes =
        static_cast<int64_t>(std::filesystem::file_size(options_.folder / "adapter.gguf"));
  }

  // A question through the server, as a client would ask it.
  void Serve() {
    if (!questions_) return;
    Stage("serve", "a question through the server", KeyOf({"serve", trained_key_, BeforeKey()}), [&] {
      const auto engine = std::make_shared<Engine>(model_, kernels_, pool_,
                                                   EngineOptions{.kv_bytes = int64_t{64} << 20});
      Server server({.port = 0}, {{"base", engine, nullptr, ""},
                                  {recipe_.name, engine, ServedAdapter(), "base"}});
      observer_.OnLine("listening on " + server.url());
      const Question& question = questions_->questions.front();
      const std::string answer =
          AskServer(server.url(), recipe_.name, question.messages, recipe_.eval.max_tokens);
      server.Stop(std::chrono::seconds(5));
      return WriteJson("served.json", Json{{"question", question.text}, {"answer", answer}});
    });
    const Json served = Json::parse(ReadFile(options_.folder / "served.json"));
    report_.served_question = served.at("question").get<std::string>();
    report_.served_answer = served.at("answer").get<std::string>();
  }

  // The middle one of each kind: chosen before anything is known about the answers.
  void ChooseShown() {
    if (!questions_) return;
    for (int kind = 0; kind < kNumQuestionKinds; ++kind) {
      const auto found = questions_->OfKind(static_cast<QuestionKind>(kind));
      if (!found.empty()) report_.shown.push_back(found[found.size() / 2]->id);
    }
  }

  std::vector<std::string> WriteJson(const std::string& file, const Json& json) const {
    WriteFileAtomically(options_.folder / file, json.dump(2) + "\n");
    return {file};
  }

  std::vector<std::string> TrainedSources() const {
    std::vector<std::string> names;
    for (const StageRecipe& stage : recipe_.stages) {
      names.insert(names.end(), stage.data.begin(), stage.data.end());
      if (stage.replay) names.push_back(stage.replay->data);
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

  const Recipe& recipe_;
  const BakeOptions& options_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  BakeObserver& observer_;
  Lineage lineage_;
  std::shared_ptr<const Model> model_;
  const std::string base_hash_;
  const TrainLayout layout_;
  ChatEncoder encode_chat_;
  std::optional<QuestionSet> questions_;
  std::vector<StageData> stage_data_;
  std::string data_key_, trained_key_;
  std::vector<float> masters_;
  std::shared_ptr<const Adapter> adapter_;
  BakeReport report_;
};

}  // namespace

std::vector<std::string> BakeStages(const Recipe& recipe, bool train_only) {
  std::vector<std::string> stages = {"licence", "data"};
  if (!train_only) stages.push_back("before");
  for (const StageRecipe& stage : recipe.stages) stages.push_back(stage.name);
  if (!train_only) stages.push_back("after");
  stages.push_back("export");
  if (!train_only) stages.push_back("serve");
  return stages;
}

BakeReport Bake(const Recipe& recipe, const BakeOptions& options, const KernelTable& kernels,
                ThreadPool& pool, BakeObserver& observer) {
  return BakeRun(recipe, options, kernels, pool, observer).Run();
}

}  // namespace bakestone
