#include "pipeline/bake.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/folder_lock.h"
#include "base/machine.h"
#include "base/sha256.h"
#include "base/temporary_folder.h"
#include "model/model_file.h"
#include "pipeline/ask_server.h"
#include "pipeline/bake_data.h"
#include "pipeline/bake_scores.h"
#include "pipeline/data_record.h"
#include "pipeline/grown_base.h"
#include "pipeline/lineage.h"
#include "pipeline/report.h"
#include "pipeline/result_files.h"
#include "pipeline/stage_observer.h"
#include "pipeline/trained_source.h"
#include "server/server.h"
#include "train/train_speed.h"
#include "train/trained.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// Of a file, or of all files of a folder.
int64_t BytesOf(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    return static_cast<int64_t>(std::filesystem::file_size(path));
  }
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

class BakeRun {
 public:
  BakeRun(const Recipe& recipe, const BakeOptions& options, const KernelTable& kernels,
          ThreadPool& pool, BakeObserver& observer, const std::filesystem::path& model)
      : recipe_(recipe),
        options_(options),
        kernels_(kernels),
        pool_(pool),
        observer_(observer),
        lineage_(options.folder),
        model_(Model::Load(model, kernels, pool, options.load)),
        base_hash_(ToHex(model_->file_hash)),
        layout_(LayoutOf(*model_, recipe)),
        data_(*model_, recipe, layout_, options, pool, observer),
        scores_(recipe, kernels, pool, observer) {}

  BakeReport Run() {
    CheckFrom();
    report_.name = recipe_.name;
    report_.base = options_.model.stem().string();
    report_.model = model_->path;
    report_.recipe = recipe_.file.string();
    report_.folder = options_.folder;
    if (options_.dry_run) {
      data_.Read({});
      data_.Show();
      Begin();
      return std::move(report_);
    }
    if (!options_.find_rate.empty()) {
      report_.rate = LookForRate();
      return std::move(report_);
    }
    const FolderLock lock(options_.folder);
    ForgetFrom();
    CheckLicences();
    CheckData();
    lineage_.Describe("made_from", MadeFrom());
    Begin();
    if (!options_.train_only && recipe_.eval.empty()) {
      observer_.OnWarning("the recipe has no [eval]: nothing is measured before and after");
    }
    if (!options_.train_only) report_.before = Score("before", scores_.Key(base_hash_), {});
    TrainStages();
    Export();
    if (!options_.train_only) {
      const Tuned tuned = LoadTuned();
      report_.after =
          Score("after", HashOfParts({"after", trained_key_, scores_.Key(base_hash_)}), tuned);
      Serve(tuned);
    }
    report_.shown = scores_.Shown();
    WriteReport(report_, recipe_);
    lineage_.Describe("figures", Figures());
    for (const std::string& warning : ForgettingWarnings(report_)) observer_.OnWarning(warning);
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
      if (observer_.Cancelled()) {
        Throw(ErrorCode::kCancelled, "stopped before stage '{}'; run again to go on", name);
      }
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

  void CheckFrom() const {
    const auto stages = BakeStages(recipe_, options_.train_only);
    if (options_.from.empty() ||
        std::find(stages.begin(), stages.end(), options_.from) != stages.end()) {
      return;
    }
    Throw(ErrorCode::kInvalidArgument, "--from: expected one of {}; found '{}'",
          fmt::join(stages, ", "), options_.from);
  }

  void ForgetFrom() {
    if (options_.from.empty()) return;
    const auto stages = BakeStages(recipe_, options_.train_only);
    auto stage = std::find(stages.begin(), stages.end(), options_.from);
    for (; stage != stages.end(); ++stage) {
      lineage_.Forget(*stage);
      std::filesystem::remove_all(options_.folder / ("train-" + *stage));
    }
  }

  void CheckLicences() {
    report_.parts.push_back({"base " + report_.base, ParseLicence(model_->licence)});
    std::string key = "licence|" + report_.parts[0].licence.id;
    std::vector<LicensedPart> data;
    for (const std::string& name : TrainedSources(recipe_)) {
      const DataSource& source = recipe_.Source(name);
      data.push_back({"data '" + name + "'", ParseLicence(source.licence)});
      key += "|" + name + "|" + source.licence;
    }
    report_.licence = DeriveLicence(report_.parts[0], data);
    report_.parts.insert(report_.parts.end(), data.begin(), data.end());
    Stage("licence", "what base and data allow", HashOfParts({key}), [&] {
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
    std::string key = "data|" + base_hash_;
    for (const std::string& name : TrainedSources(recipe_)) key += SourceKey(recipe_.Source(name));
    for (const StageRecipe& stage : recipe_.stages) key += "|" + StageKey(recipe_, stage);
    data_.Read(options_.folder / "rejected");
    Stage("data", "what will be learned", HashOfParts({key}), [&] {
      data_.Show();
      return WriteJson("data.json", data_.Record());
    });
  }

  // tuned: without a model, the base as it was.
  Evaluation Score(const std::string& name, const std::string& key, const Tuned& tuned) {
    const std::string file = name + ".json";
    const bool base = tuned.model == nullptr;
    Stage(name,
          base ? "the base: texts and held-out questions"
               : "the tuned model: texts and held-out questions",
          key, [&] {
            return WriteJson(
                file, ToJson(scores_.Run(name, base ? Tuned{BaseAsItWas(), nullptr} : tuned)));
          });
    const auto path = options_.folder / file;
    return EvaluationFromJson(Json::parse(ReadFile(path), nullptr, false), path.string());
  }

  // What a run with new tokens is compared with is the base without them; without a template it
  // could not be asked.
  std::shared_ptr<const Model> BaseAsItWas() const {
    return recipe_.add_tokens.any() && !recipe_.chat.any()
               ? Model::Load(options_.model, kernels_, pool_, options_.load)
               : model_;
  }

  // What the result depends on; hashes are SHA-256.
  Json MadeFrom() const {
    Json json = {
        {"program", "bakestone " + options_.version},
        {"recipe", {{"file", recipe_.file.string()}, {"sha256", ToHex(HashOfFile(recipe_.file))}}},
        {"seed", recipe_.seed},
        {"base",
         {{"file", options_.model.string()},
          {"sha256", ToHex(ModelFile::Open(options_.model).ContentHash([](const auto& file) {
             return HashOfFile(file);
           }))},
          {"licence", report_.parts[0].licence.id}}},
        {"trained_sha256", base_hash_},
        {"data", Json::array()},
        {"licence", report_.licence.licence.id}};
    for (const std::string& name : TrainedSources(recipe_)) {
      const DataSource& source = recipe_.Source(name);
      json["data"].push_back({{"name", name},
                              {"sha256", ToHex(HashOfFile(source.path))},
                              {"source", source.source.empty() ? "unknown" : source.source},
                              {"licence", source.licence.empty() ? "unknown" : source.licence}});
    }
    return json;
  }

  // Those of the report that say how good the result is.
  Json Figures() const {
    const Json report = BakeReportJson(report_);
    Json figures = Json::object();
    for (const char* key : {"train", "before", "after"}) {
      if (report.contains(key)) figures[key] = report[key];
    }
    for (const char* side : {"before", "after"}) {
      if (figures.contains(side)) figures[side].erase("answers");
    }
    return figures;
  }

  // What training starts from. An adapter of another base, and what could not be written in the
  // end, are refused now, before hours of work.
  void Begin() {
    masters_ = InitialValues(*model_, layout_, recipe_.seed, kernels_, pool_);
    trained_key_ = HashOfParts({"initial", base_hash_, std::to_string(recipe_.seed)});
    if (!recipe_.lora.start.empty()) {
      StartFrom(*model_, layout_, recipe_.lora, masters_);
      Sha256 start;
      start.Update(std::string_view(reinterpret_cast<const char*>(masters_.data()),
                                    masters_.size() * sizeof(float)));
      trained_key_ = HashOfParts({trained_key_, "start", ToHex(start.Finish())});
    }
    if (!recipe_.lora.served_as_adapter()) {
      OpenTrainedSource(*model_, layout_, masters_, recipe_.lora);
    }
  }

  void TrainStages() {
    Exec exec(kernels_, pool_);
    for (size_t i = 0; i < recipe_.stages.size(); ++i) {
      const StageRecipe& stage = recipe_.stages[i];
      trained_key_ = HashOfParts({trained_key_, data_.Key(stage)});
      const std::string folder = "train-" + stage.name;
      TrainOptions train = options_.train;
      train.folder = options_.folder / folder;
      const auto work = [&] {
        DropStale(train.folder);
        train = data_.FitMemory(stage, data_.of(i), train).options;
        StageObserver observer(
            observer_, *model_, exec, scores_.questions(), recipe_.eval, stage.name,
            options_.train_only || !recipe_.lora.served_as_adapter() ? 0 : options_.probe_seconds,
            [&](const KeptValues& values) { Keep(stage, values); });
        observer.SetLimit(TrainProductLimit(kernels_.train, pool_));
        const StageOutcome outcome = TrainStage(*model_, recipe_, stage, data_.of(i), masters_,
                                                trained_key_, kernels_, pool_, train, observer);
        ShowOutcome(stage, outcome);
        WriteFileAtomically(
            train.folder / "summary.json",
            Json{{"tokens", outcome.last.tokens},
                 {"seconds", outcome.last.seconds},
                 {"steps", outcome.last.step},
                 {"best_step", outcome.best_step},
                 {"best_loss", outcome.best_loss},
                 {"best_answers", stage.answers.empty() ? -1 : outcome.best_answers},
                 {"stopped_early", outcome.stopped_early},
                 {"peak_bytes", outcome.peak_bytes}}
                    .dump() +
                "\n");
        return std::vector<std::string>{folder + "/result.bin", folder + "/summary.json"};
      };
      Stage(stage.name, MethodName(stage.method), trained_key_, work);
      const Json summary = Json::parse(ReadFile(train.folder / "summary.json"));
      report_.trained.push_back({.name = stage.name,
                                 .method = MethodName(stage.method),
                                 .steps = summary.at("steps"),
                                 .tokens = summary.at("tokens"),
                                 .seconds = summary.at("seconds"),
                                 .best_step = summary.at("best_step"),
                                 .best_loss = summary.at("best_loss"),
                                 .best_answers = summary.value("best_answers", -1.0),
                                 .stopped_early = summary.at("stopped_early"),
                                 .texts = ReadStepHistory(train.folder / "log.jsonl").texts});
      report_.train_tokens += report_.trained.back().tokens;
      report_.train_seconds += report_.trained.back().seconds;
      masters_ = ReadStageResult(train.folder, trained_key_, layout_);
    }
  }

  // Work of another recipe or other data in the stage's folder is of no use to this one.
  void DropStale(const std::filesystem::path& folder) const {
    if (HasStageState(folder, trained_key_)) return;
    if (std::filesystem::exists(folder)) {
      observer_.OnLine(fmt::format(
          "{}: what an earlier run left there is of another recipe, base or data, or no whole "
          "checkpoint: it makes room",
          folder.string()));
    }
    std::filesystem::remove_all(folder);
  }

  RateFinding LookForRate() {
    const auto stage =
        std::find_if(recipe_.stages.begin(), recipe_.stages.end(),
                     [&](const StageRecipe& known) { return known.name == options_.find_rate; });
    if (stage == recipe_.stages.end()) {
      std::vector<std::string> names;
      for (const StageRecipe& known : recipe_.stages) names.push_back(known.name);
      Throw(ErrorCode::kInvalidArgument, "--find-lr: expected the name of a stage ({}), found '{}'",
            fmt::join(names, ", "), options_.find_rate);
    }
    const StageData data = data_.ReadOne(*stage);
    AlignedVector<float> values = InitialValues(*model_, layout_, recipe_.seed, kernels_, pool_);
    if (!recipe_.lora.start.empty()) StartFrom(*model_, layout_, recipe_.lora, values);
    Exec exec(kernels_, pool_);
    StageObserver observer(observer_, *model_, exec, nullptr, recipe_.eval, "rates", 0, {});
    return FindRate(*model_, recipe_, *stage, data, std::move(values), kernels_, pool_,
                    data_.FitMemory(*stage, data, options_.train).options, observer);
  }

  void ShowOutcome(const StageRecipe& stage, const StageOutcome& outcome) {
    if (outcome.best_step < 0) return;
    const std::string what =
        stage.answers.empty()
            ? fmt::format("held-out loss: lowest {:.4f}", outcome.best_loss)
            : fmt::format("answers: {:.1f} % exactly right at best", outcome.best_answers * 100);
    observer_.OnLine(fmt::format("{} after step {} of {}{}{}", what, outcome.best_step,
                                 outcome.last.step,
                                 outcome.stopped_early ? "; stopped, since it got no better" : "",
                                 stage.keep == KeepPolicy::kBest ? "; its values are kept" : ""));
  }

  Tuned LoadTuned() const {
    if (!recipe_.lora.served_as_adapter()) {
      return {Model::Load(report_.result, kernels_, pool_, options_.load), nullptr};
    }
    auto adapter = std::make_shared<Adapter>(model_->config, recipe_.name);
    SetAdapter(layout_, masters_, recipe_.lora, adapter.get());
    adapter->Publish();
    return {model_, std::move(adapter)};
  }

  void Export() {
    const bool beside = recipe_.lora.served_as_adapter();
    report_.result = options_.folder / (beside ? "adapter.gguf" : "model.gguf");
    report_.result_is_adapter = beside;
    Stage("export", beside ? "adapter as a PEFT folder and as GGUF" : "the whole model as GGUF",
          HashOfParts({"export", trained_key_, report_.licence.licence.id}), [&] {
            return WriteResultFiles(*model_, layout_, masters_, recipe_, options_.folder, kernels_,
                                    pool_, ResultOptions());
          });
    report_.base_bytes = BytesOf(options_.model);
    report_.result_bytes = static_cast<int64_t>(std::filesystem::file_size(report_.result));
  }

  ResultFilesOptions ResultOptions() const {
    ResultFilesOptions options;
    if (report_.licence.licence.kind != LicenceKind::kUnknown) {
      options.licence = report_.licence.licence.id;
    }
    options.progress = [this](int64_t done, int64_t total) {
      observer_.OnProgress("model.gguf", done, total, "bytes", "");
    };
    return options;
  }

  // Values of a stage on its way, beside the result: the last few and the best.
  void Keep(const StageRecipe& stage, const KeptValues& values) const {
    const auto kept = options_.folder / "kept";
    WriteResultFiles(*model_, layout_, values.masters, recipe_,
                     KeptFolder(kept, stage.name, values.step), kernels_, pool_, ResultOptions());
    if (stage.keep_last == 0) {
      observer_.OnLine(fmt::format("the values after step {} are kept: {}", values.step,
                                   KeptFolder(kept, stage.name, values.step).string()));
    }
    DropOldKept(kept, stage.name, values.step, std::max<int64_t>(1, stage.keep_last),
                values.best_step);
  }

  // A question through the server, as a client would ask it.
  void Serve(const Tuned& tuned) {
    if (scores_.questions() == nullptr) return;
    Stage("serve", "a question through the server",
          HashOfParts({"serve", trained_key_, scores_.Key(base_hash_)}), [&] {
            const auto engine = std::make_shared<Engine>(
                tuned.model, kernels_, pool_, EngineOptions{.kv_bytes = int64_t{64} << 20});
            Server server(
                {.port = 0},
                tuned.adapter == nullptr
                    ? std::vector<ServedModel>{{recipe_.name, engine, nullptr, ""}}
                    : std::vector<ServedModel>{{"base", engine, nullptr, ""},
                                               {recipe_.name, engine, tuned.adapter, "base"}});
            observer_.OnLine("listening on " + server.url());
            const Question& question = scores_.questions()->questions.front();
            const std::string answer =
                AskServer(server.url(), recipe_.name, question.messages, recipe_.eval.max_tokens);
            server.Stop(std::chrono::seconds(5));
            return WriteJson("served.json", Json{{"question", question.text}, {"answer", answer}});
          });
    const Json served = Json::parse(ReadFile(options_.folder / "served.json"));
    report_.served_question = served.at("question").get<std::string>();
    report_.served_answer = served.at("answer").get<std::string>();
  }

  std::vector<std::string> WriteJson(const std::string& file, const Json& json) const {
    WriteFileAtomically(options_.folder / file, json.dump(2) + "\n");
    return {file};
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
  BakeData data_;
  BakeScores scores_;
  std::string trained_key_;
  AlignedVector<float> masters_;
  BakeReport report_;
};

}  // namespace

std::vector<std::string> BakeStages(const Recipe& recipe, bool train_only) {
  std::vector<std::string> stages = {"licence", "data"};
  if (!train_only) stages.push_back("before");
  for (const StageRecipe& stage : recipe.stages) stages.push_back(stage.name);
  stages.push_back("export");
  if (!train_only) stages.insert(stages.end(), {"after", "serve"});
  return stages;
}

BakeReport Bake(const Recipe& recipe, const BakeOptions& options, const KernelTable& kernels,
                ThreadPool& pool, BakeObserver& observer) {
  if (!recipe.grows_base()) {
    return BakeRun(recipe, options, kernels, pool, observer, options.model).Run();
  }
  // A run that leaves nothing has its base elsewhere.
  const bool leaves_nothing = options.dry_run || !options.find_rate.empty();
  const TemporaryFolder scratch("bakestone-base");
  const auto file = (leaves_nothing ? scratch.path() : options.folder) / "base.gguf";
  const GrownBase base =
      GrowBase(recipe, options.model, file, kernels, pool, [&](int64_t done, int64_t total) {
        if (observer.Cancelled()) Throw(ErrorCode::kCancelled, "stopped while tokens were added");
        observer.OnProgress("base.gguf", done, total, "bytes", "");
      });
  if (!base.lines.empty()) observer.OnStage("base", "with what the recipe adds to it");
  for (const std::string& line : base.lines) observer.OnLine(line);
  Recipe grown = recipe;
  grown.lora.first_new = base.first_new;
  grown.lora.new_tokens = base.num_new > 0;
  return BakeRun(grown, options, kernels, pool, observer, base.model).Run();
}

}  // namespace bakestone
