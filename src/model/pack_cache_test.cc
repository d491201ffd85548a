#include "model/pack_cache.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "model/model.h"
#include "model/test_model.h"

namespace bakestone {
namespace {

using testing::TestModelOptions;

// A model's file, a cache folder, and models loaded through it.
class PackCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
    testing::WriteTestModel(model_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::shared_ptr<const Model> Load(std::optional<PackCacheOptions> cache) {
    return Model::Load(model_, ChooseKernels("reference"), pool_, {.pack_cache = std::move(cache)});
  }
  std::shared_ptr<const Model> Load() { return Load(PackCacheOptions{folder_}); }

  std::filesystem::path PackedPath() { return PackCache({folder_}).PathOf(HashOfFile(model_)); }
  int64_t CountOf(const std::string& extension) const {
    int64_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      count += entry.path().extension() == extension ? 1 : 0;
    }
    return count;
  }

  // All panels, norms and biases, in order.
  static std::string BytesOf(const Model& model) {
    std::string bytes;
    const auto add = [&](const Weight& weight) {
      bytes.append(reinterpret_cast<const char*>(weight.panel().data),
                   static_cast<size_t>(weight.bytes()));
    };
    add(model.weights->embedding);
    for (const LayerWeights& layer : model.weights->layers) {
      for (int site = 0; site < kNumSites; ++site) add(layer.at(static_cast<Site>(site)));
    }
    add(model.weights->head());
    return bytes;
  }

  // Changes the packed file with `change(bytes)`, and expects a new one in its place and the right
  // weights.
  void ExpectMadeAnew(const std::function<void(std::string&)>& change) {
    const std::string expected = BytesOf(*Load(std::nullopt));
    Load();
    const std::string good = ReadFile(PackedPath());
    std::string bad = good;
    change(bad);
    std::ofstream(PackedPath(), std::ios::binary | std::ios::trunc) << bad;
    EXPECT_EQ(BytesOf(*Load()), expected);
    EXPECT_EQ(ReadFile(PackedPath()), good);
  }

  ThreadPool pool_{2};
  const std::filesystem::path root_ =
      std::filesystem::path(::testing::TempDir()) / "bakestone_pack_cache_test";
  const std::filesystem::path model_ = root_ / "model.gguf", folder_ = root_ / "cache" / "packed";
};

TEST_F(PackCacheTest, MapsTheVeryBytesThatPackingMakes) {
  const std::string expected = BytesOf(*Load(std::nullopt));
  EXPECT_FALSE(std::filesystem::exists(folder_));
  EXPECT_EQ(BytesOf(*Load()), expected);
  const auto written = std::filesystem::last_write_time(PackedPath());
  EXPECT_EQ(BytesOf(*Load()), expected);
  EXPECT_EQ(std::filesystem::last_write_time(PackedPath()), written);  // found, not made again
  EXPECT_EQ(CountOf(".panels"), 1);
}

TEST_F(PackCacheTest, HoldsEveryTypeAndAnUntiedHead) {
  testing::WriteTestModel(model_, {.hidden_dim = 256,
                                   .ffn_dim = 256,
                                   .head_dim = 64,
                                   .embedding_type = DType::kF16,
                                   .types = {DType::kQ4_K, DType::kQ6_K, DType::kBF16, DType::kQ5_K,
                                             DType::kIQ4_XS, DType::kQ3_K, DType::kMXFP4},
                                   .tied = false,
                                   .bias = true});
  const std::string expected = BytesOf(*Load(std::nullopt));
  Load();
  EXPECT_EQ(BytesOf(*Load()), expected);
}

// Files large enough for huge pages, in a file system that may have them and in one that has none:
// mapped or copied out, the same bytes.
TEST_F(PackCacheTest, GivesTheSameBytesOnHugePagesAndOnSmallOnes) {
  testing::WriteTestModel(model_, {.hidden_dim = 256,
                                   .ffn_dim = 8192,
                                   .head_dim = 64,
                                   .types = {DType::kQ8_0, DType::kQ8_0, DType::kQ8_0, DType::kQ8_0,
                                             DType::kQ8_0, DType::kQ4_K, DType::kQ4_0}});
  const std::string expected = BytesOf(*Load(std::nullopt));
  ASSERT_GT(expected.size(), size_t{8} << 20);
  std::vector<std::filesystem::path> folders = {folder_};
  const std::filesystem::path memory =
      fmt::format("/dev/shm/bakestone_pack_cache_test-{}", ::getpid());
  if (std::filesystem::is_directory("/dev/shm")) folders.push_back(memory);
  for (const auto& folder : folders) {
    for (int start = 0; start < 2; ++start) {
      EXPECT_EQ(BytesOf(*Load(PackCacheOptions{folder})), expected) << folder;
    }
  }
  std::filesystem::remove_all(memory);
}

TEST_F(PackCacheTest, MakesADamagedFileAnew) {
  ExpectMadeAnew([](std::string& bytes) { bytes.resize(bytes.size() / 2); });
  ExpectMadeAnew([](std::string& bytes) { bytes.clear(); });
  ExpectMadeAnew([](std::string& bytes) { bytes.resize(bytes.size() - 1); });
  for (const double where : {0.0, 0.1, 0.5, 0.9, 1.0}) {  // header, panels, directory, trailer
    ExpectMadeAnew([&](std::string& bytes) {
      bytes[static_cast<size_t>(where * static_cast<double>(bytes.size() - 1))] ^= 1;
    });
  }
}

// The hash of a settled file is remembered, and stat() tells of any change.
TEST_F(PackCacheTest, NoticesAnAlterationOfAFileThatItHasChecked) {
  Load();
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  Load();  // checked, and remembered
  const auto time = std::filesystem::last_write_time(PackedPath());
  const std::string good = ReadFile(PackedPath());
  {
    std::fstream file(PackedPath(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(1000);
    file.put(static_cast<char>(good[1000] ^ 1));
  }
  std::filesystem::last_write_time(PackedPath(),
                                   time);  // hides it from a look at the size and that time
  EXPECT_EQ(BytesOf(*Load()), BytesOf(*Load(std::nullopt)));
  EXPECT_EQ(ReadFile(PackedPath()), good);
}

TEST_F(PackCacheTest, ASourceThatChangedIsAnotherModel) {
  Load();
  testing::WriteTestModel(model_, {.seed = 2});
  EXPECT_EQ(BytesOf(*Load()), BytesOf(*Load(std::nullopt)));
  EXPECT_EQ(CountOf(".panels"), 2);
}

// Weights that are quantized while they are loaded are other weights, under another name.
TEST_F(PackCacheTest, KeepsWhatWasQuantizedOnLoadBesideTheModelItself) {
  testing::WriteTestModel(model_, {.hidden_dim = 256, .ffn_dim = 256, .head_dim = 64});
  const auto load = [&](DType type, std::optional<PackCacheOptions> cache) {
    LoadOptions options{.pack_cache = std::move(cache)};
    options.types = [type](const std::filesystem::path&) {
      return LoadTypes{{{"blk.0.attn_q.weight", type}, {"blk.1.ffn_down.weight", type}}};
    };
    return Model::Load(model_, ChooseKernels("reference"), pool_, options);
  };
  const auto plain = Load();
  const std::string expected = BytesOf(*load(DType::kQ4_K, std::nullopt));
  EXPECT_NE(expected, BytesOf(*plain));
  const auto first = load(DType::kQ4_K, PackCacheOptions{folder_});
  EXPECT_EQ(BytesOf(*first), expected);
  EXPECT_EQ(first->weights->layers[0].q.disk_type(), DType::kQ4_K);
  EXPECT_EQ(first->weights->layers[1].q.disk_type(), plain->weights->layers[1].q.disk_type());
  EXPECT_NE(first->file_hash, plain->file_hash);
  EXPECT_NE(first->file_hash, load(DType::kQ6_K, std::nullopt)->file_hash);
  first->keeping.wait();
  EXPECT_EQ(CountOf(".panels"), 2);
  const auto path = PackCache({folder_}).PathOf(first->file_hash);
  const auto written = std::filesystem::last_write_time(path);
  const auto second = load(DType::kQ4_K, PackCacheOptions{folder_});
  EXPECT_EQ(BytesOf(*second), expected);
  EXPECT_EQ(second->file_hash, first->file_hash);
  EXPECT_FALSE(second->keeping.valid());  // found, not made again
  EXPECT_EQ(std::filesystem::last_write_time(path), written);
}

TEST_F(PackCacheTest, ConcurrentWritersLeaveOneGoodFile) {
  const std::string expected = BytesOf(*Load(std::nullopt));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      ThreadPool pool(1);
      const auto model = Model::Load(model_, ChooseKernels("reference"), pool,
                                     {.pack_cache = PackCacheOptions{folder_}});
      EXPECT_EQ(BytesOf(*model), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(CountOf(".panels"), 1);
  EXPECT_EQ(BytesOf(*Load()), expected);
}

TEST_F(PackCacheTest, WorksWithoutAFolderItCanWrite) {
  std::filesystem::create_directories(root_ / "cache");
  std::ofstream(folder_) << "a file where the folder would be";
  EXPECT_EQ(BytesOf(*Load()), BytesOf(*Load(std::nullopt)));
  EXPECT_TRUE(std::filesystem::is_regular_file(folder_));
}

TEST_F(PackCacheTest, LetsTheOldestGoWhenItOutgrowsItsLimit) {
  Load();
  const std::filesystem::path first = PackedPath();
  const auto size = static_cast<int64_t>(std::filesystem::file_size(first));
  std::ofstream(folder_ / ".abandoned.panels.x") << "left behind";
  const auto old = std::filesystem::file_time_type::clock::now() - std::chrono::hours(48);
  std::filesystem::last_write_time(folder_ / ".abandoned.panels.x", old);
  std::filesystem::last_write_time(first, old);
  testing::WriteTestModel(model_, {.seed = 2});
  Load();
  const std::filesystem::path second = PackedPath();
  EXPECT_TRUE(std::filesystem::exists(first));
  EXPECT_FALSE(std::filesystem::exists(folder_ / ".abandoned.panels.x"));
  testing::WriteTestModel(model_, {.seed = 3});
  const PackCacheOptions two{folder_, 2 * size + size / 2};
  EXPECT_EQ(BytesOf(*Load(two)), BytesOf(*Load(std::nullopt)));
  EXPECT_FALSE(std::filesystem::exists(first));
  EXPECT_TRUE(std::filesystem::exists(second));
  EXPECT_TRUE(std::filesystem::exists(PackedPath()));
  testing::WriteTestModel(model_, {.seed = 4});
  Load(PackCacheOptions{folder_, 1000});  // would never fit: not kept
  EXPECT_EQ(CountOf(".panels"), 2);
}

}  // namespace
}  // namespace bakestone
