// The judging half of a bake: the same texts and held-out questions before and after training.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "pipeline/bake.h"

namespace bakestone {

// What is served in the end: the base with an adapter, or a model of its own.
struct Tuned {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Adapter> adapter;  // null: none
};

class BakeScores {
 public:
  // Keeps references; reads the questions, if the recipe has any. Throws what ReadQuestions throws.
  BakeScores(const Recipe& recipe, const KernelTable& kernels, ThreadPool& pool,
             BakeObserver& observer);

  // Null: the recipe asks nothing.
  const QuestionSet* questions() const { return questions_ ? &*questions_ : nullptr; }
  // What is asked and scored of a base, as the key of the answers.
  std::string Key(const std::string& base_hash) const;
  // name: of the stage, for people.
  Evaluation Run(const std::string& name, const Tuned& tuned) const;
  // Ids of the questions that people see side by side.
  std::vector<std::string> Shown() const;

 private:
  std::string TextOf(const std::string& name) const;

  const Recipe& recipe_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  BakeObserver& observer_;
  std::optional<QuestionSet> questions_;
};

}  // namespace bakestone
