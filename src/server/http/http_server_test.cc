#include "server/http/http_server.h"

#include <atomic>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "server/test_client.h"

namespace bakestone::http {
namespace {

using namespace std::chrono_literals;
using bakestone::testing::BodyOf;
using bakestone::testing::Get;
using bakestone::testing::Post;
using bakestone::testing::RawClient;
using bakestone::testing::StatusOf;
using ::testing::HasSubstr;
using ::testing::Not;

HttpOptions TestOptions() {
  HttpOptions options;
  options.port = 0;
  options.header_deadline = 400ms;
  options.body_deadline = 400ms;
  options.keep_alive_every = 50ms;
  return options;
}

// Echoes; "/hang" never answers but notes the departure; "/drop" lets go of the responder;
// "/stream" sends pieces until told to stop; "/throw" throws.
class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpOptions options = TestOptions()) {
    server_ = std::make_unique<HttpServer>(
        std::move(options),
        [this](const Request& request, auto responder) { Handle(request, std::move(responder)); });
  }
  void Handle(const Request& request, std::shared_ptr<Responder> responder) {
    if (request.path == "/throw") throw std::runtime_error("a defect");
    if (request.path == "/drop") return;
    if (request.path == "/hang") {
      held_ = responder;  // before the departure, after which the test uses it
      responder->OnDisconnect([this] { departed_.set_value(); });
      return;
    }
    if (request.path == "/quiet") {  // begins, then says nothing for a while
      responder->Begin({.content_type = "text/event-stream", .headers = {}, .body = {}},
                       ": ping\n\n");
      std::this_thread::sleep_for(200ms);
      responder->Write("data: late\n\n");
      responder->End();
      return;
    }
    if (request.path == "/flood") {
      responder->Begin({.content_type = "text/plain", .headers = {}, .body = {}}, "");
      for (int i = 0; i < 64; ++i) responder->Write(std::string(1 << 20, 'x'));
      responder->End();
      return;
    }
    responder->Send({.content_type = "text/plain",
                     .headers = {},
                     .body = request.method + " " + request.path + " " + request.query + " " +
                             request.tenant() + "|" + request.body});
  }
  std::string Exchange(std::string_view bytes) {
    RawClient client(server_->port());
    client.Send(bytes);
    return client.ReadResponse();
  }
  bool Alive() { return StatusOf(Exchange(Get("/alive"))) == 200; }

  std::promise<void> departed_;
  std::shared_ptr<Responder> held_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  Start();
  RawClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.Send(Post("/echo?x=1", "{}"));
    EXPECT_EQ(BodyOf(client.ReadResponse()), "POST /echo x=1 |{}");
  }
}

TEST_F(HttpServerTest, PipelinedRequestsAreAnsweredInOrder) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/one") + Get("/two") + Post("/three", "3"));
  EXPECT_THAT(client.ReadResponse(), HasSubstr("/one"));
  EXPECT_THAT(client.ReadResponse(), HasSubstr("/two"));
  EXPECT_THAT(client.ReadResponse(), HasSubstr("/three"));
}

TEST_F(HttpServerTest, ChunkedBodiesAndContinueAreUnderstood) {
  Start();
  EXPECT_THAT(Exchange("POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
              HasSubstr("|abcde"));
  RawClient client(server_->port());
  client.Send(
      "POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_TRUE(client.ReadUntil("100 Continue\r\n\r\n"));
  client.Send("{}");
  EXPECT_TRUE(client.ReadUntil("|{}"));
}

TEST_F(HttpServerTest, StreamHasKeepAlivesWhileNothingElseComes) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/quiet", "Connection: close\r\n"));
  const std::string all = client.ReadAll();
  EXPECT_THAT(all, HasSubstr("Transfer-Encoding: chunked"));
  EXPECT_THAT(all, HasSubstr("8\r\n: ping\n\n\r\n"));
  EXPECT_THAT(all, HasSubstr("data: late\n\n\r\n0\r\n\r\n"));
}

TEST_F(HttpServerTest, OldClientsGetTheirStreamWithoutChunks) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /quiet HTTP/1.0\r\nHost: localhost\r\n\r\n");
  const std::string all = client.ReadAll();
  EXPECT_THAT(all, Not(HasSubstr("chunked")));
  EXPECT_TRUE(all.ends_with("data: late\n\n"));
}

TEST_F(HttpServerTest, DepartureIsNoticedWhileAnAnswerIsPending) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/hang"));
  std::this_thread::sleep_for(50ms);
  client.Close();
  EXPECT_EQ(departed_.get_future().wait_for(10s), std::future_status::ready);
  held_->Send({.headers = {}, .body = "too late"});  // harmless
  EXPECT_TRUE(Alive());
}

TEST_F(HttpServerTest, DroppedOrThrowingHandlerDoesNotHangTheClient) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/drop"));
  EXPECT_EQ(client.ReadAll(10s), "");
  EXPECT_EQ(StatusOf(Exchange(Get("/throw"))), 500);
}

TEST_F(HttpServerTest, ClientThatDoesNotReadIsCut) {
  HttpOptions options = TestOptions();
  options.max_unsent_bytes = 1 << 20;
  Start(options);
  RawClient client(server_->port());
  client.Send(Get("/flood"));
  std::this_thread::sleep_for(300ms);
  EXPECT_LT(client.ReadAll().size(), size_t{40} << 20);
  EXPECT_TRUE(Alive());
}

TEST_F(HttpServerTest, SlowHeadersAndBodiesEndAtTheirDeadline) {
  Start();
  RawClient head(server_->port()), body(server_->port());
  head.Send("GET / HTTP/1.1\r\nHost: loc");
  body.Send(
      "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
      "100\r\n\r\n{");
  const auto start = std::chrono::steady_clock::now();
  std::thread drip([&] {
    for (int i = 0; i < 12; ++i) {
      head.Send("a");
      std::this_thread::sleep_for(100ms);
    }
  });
  EXPECT_EQ(StatusOf(body.ReadResponse()), 408);
  EXPECT_EQ(StatusOf(head.ReadResponse()), 408);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  drip.join();
}

TEST_F(HttpServerTest, HostileRequestsGetA4xx) {
  HttpOptions options = TestOptions();
  options.max_body_bytes = 1000;
  Start(options);
  const std::string json = "Content-Type: application/json\r\n";
  const std::pair<int, std::string> cases[] = {
      {400, "GET / HTTP/1.1\r\n\r\n"},  // no Host
      {400, "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"},
      {403, "GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n"},
      {403, "GET / HTTP/1.1\r\nHost: localhost.rebound.example\r\n\r\n"},
      {403, "GET / HTTP/1.1\r\nHost: 127.0.0.1.rebound.example\r\n\r\n"},
      {400, "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json + "Content-Length: -1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Content-Length: 99999999999999999999999\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Transfer-Encoding: chunked\r\n\r\nZZ\r\n"},
      {413, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json + "Content-Length: 1001\r\n\r\n"},
      {413, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Transfer-Encoding: chunked\r\n\r\nFFFFF\r\n" + std::string(2000, 'x')},
      {415,
       "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: "
       "2\r\n\r\n{}"},
      {415,
       "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://page.example\r\nContent-Length: "
       "2\r\n\r\n{}"},
      {415,
       "POST / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\nContent-Length: "
       "2\r\n\r\n{}"},
      {415,
       "DELETE / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: "
       "2\r\n\r\n{}"},
      {415, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"},
      {417, "POST / HTTP/1.1\r\nHost: localhost\r\n" + json +
                "Expect: tea\r\nContent-Length: 2\r\n\r\n{}"},
      {431, "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n"},
      {431, "GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n"},
      {400, "GET /" + std::string(1, '\0') + " HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "\x16\x03\x01\x02\x00\x01\x00 TLS to a plain port\r\n\r\n"},
  };
  for (const auto& [status, bytes] : cases) {
    EXPECT_EQ(StatusOf(Exchange(bytes)), status) << bytes.substr(0, 200);
  }
  EXPECT_TRUE(Alive());
}

TEST_F(HttpServerTest, RandomBytesNeverGetAnAnswerOtherThan4xx) {
  Start();
  Rng rng(1, 0);
  for (int i = 0; i < 300; ++i) {
    std::string bytes;
    const uint64_t n = rng.Below(300);
    for (uint64_t k = 0; k < n; ++k) bytes += static_cast<char>(rng.Below(256));
    if (i % 2) bytes = "POST /x HTTP/1.1\r\nHost: localhost\r\n" + bytes;
    RawClient client(server_->port());
    client.Send(bytes + "\r\n\r\n");
    const std::string response = client.ReadResponse();
    const int status = StatusOf(response);
    EXPECT_TRUE(status == 0 || (status >= 400 && status < 500)) << response;
  }
  EXPECT_TRUE(Alive());
}

TEST_F(HttpServerTest, MutatedRequestsLeaveTheServerAlive) {
  Start();
  Rng rng(2, 0);
  const std::string good = Post("/x", "{\"a\": 1}", "Connection: close\r\n");
  for (int i = 0; i < 300; ++i) {
    std::string bytes = good;
    for (uint64_t k = 0; k <= rng.Below(4); ++k) {
      bytes[rng.Below(bytes.size())] = static_cast<char>(rng.Below(256));
    }
    RawClient client(server_->port());
    client.Send(bytes);
    const int status = StatusOf(client.ReadResponse());
    EXPECT_TRUE(status == 0 || status == 200 || (status >= 400 && status < 500));
  }
  EXPECT_TRUE(Alive());
}

TEST_F(HttpServerTest, EveryRouteButThePublicOnesNeedsAKey) {
  HttpOptions options = TestOptions();
  options.api_keys = {"first-key-0123456789", "second-key-0123456789"};
  options.public_paths = {"/health"};
  Start(options);
  const auto status = [&](std::string_view path, const std::string& authorization) {
    return StatusOf(Exchange(Get(path, authorization)));
  };
  for (const char* path :
       {"/", "/v1/models", "/health/", "//health", "/Health", "/v1/../health", "/health%00"}) {
    EXPECT_EQ(status(path, ""), 401) << path;
    EXPECT_EQ(status(path, "Authorization: Bearer wrong-key-0123456789\r\n"), 401);
    EXPECT_EQ(status(path, "Authorization: Bearer \r\n"), 401);
    EXPECT_EQ(status(path, "Authorization: Basic first-key-0123456789\r\n"), 401);
    EXPECT_EQ(status(path, "Authorization: Bearer first-key-01234567890\r\n"), 401);
    EXPECT_EQ(status(path, "Authorization: Bearer first-key-0123456789\r\nAuthorization: x\r\n"),
              401);
    EXPECT_EQ(status(path, "Authorization: Bearer first-key-0123456789\r\n"), 200);
    EXPECT_EQ(status(path, "authorization: bearer second-key-0123456789\r\n"), 200);
  }
  EXPECT_EQ(status("/", "X-Api-Key: second-key-0123456789\r\n"), 200);
  EXPECT_EQ(status("/", "X-Api-Key: wrong-key-0123456789\r\n"), 401);
  EXPECT_EQ(status("/", "X-Api-Key: second-key-0123456789\r\nX-Api-Key: x\r\n"), 401);
  EXPECT_EQ(status("/health", ""), 200);
  EXPECT_EQ(status("/health?x", ""), 200);

  server_->SetKeys({"third-key-0123456789"});
  EXPECT_EQ(status("/", "X-Api-Key: second-key-0123456789\r\n"), 401);
  EXPECT_EQ(status("/", "X-Api-Key: third-key-0123456789\r\n"), 200);
  EXPECT_THROW(server_->SetKeys({"short"}), Error);
  EXPECT_EQ(status("/", "X-Api-Key: third-key-0123456789\r\n"), 200);
}

TEST_F(HttpServerTest, PagesOfOtherOriginsMayAskOnlyWhereTold) {
  const std::string page = "Origin: https://page.example\r\n";
  const std::string preflight =
      "OPTIONS /x HTTP/1.1\r\nHost: localhost\r\nAccess-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization, content-type\r\n" +
      page + "\r\n";
  HttpOptions options = TestOptions();
  options.api_keys = {"first-key-0123456789"};
  Start(options);
  EXPECT_EQ(StatusOf(Exchange(preflight)), 401);
  const std::string key = "Authorization: Bearer first-key-0123456789\r\n";
  EXPECT_THAT(Exchange(Get("/x", page + key)), Not(HasSubstr("Access-Control")));
  for (const char* none : {"page.example", "https://", "https://page.example/x", "://x", ""}) {
    options.allowed_origins = {none};
    EXPECT_THROW(Start(options), Error) << none;
  }
  options.allowed_origins = {"https://page.example"};
  Start(options);
  const std::string answer = Exchange(preflight);
  EXPECT_EQ(StatusOf(answer), 204);
  EXPECT_THAT(answer, HasSubstr("Access-Control-Allow-Headers: authorization, content-type\r\n"));
  EXPECT_THAT(answer, HasSubstr("Access-Control-Allow-Origin: https://page.example\r\n"));
  EXPECT_THAT(Exchange(Get("/x", page + key)),
              HasSubstr("Access-Control-Allow-Origin: https://page.example\r\n"));
  EXPECT_THAT(Exchange(Get("/x", page)),
              HasSubstr("Access-Control-Allow-Origin"));  // so that the page can read the 401
  EXPECT_THAT(Exchange(Get("/x", "Origin: https://other.example\r\n" + key)),
              Not(HasSubstr("Access-Control")));
}

TEST_F(HttpServerTest, MoreConnectionsThanTheCapAreTurnedAway) {
  HttpOptions options = TestOptions();
  options.max_connections = 4;
  options.header_deadline = 10s;
  Start(options);
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 4; ++i) {
    idle.push_back(std::make_unique<RawClient>(server_->port()));
    idle.back()->Send("GET");
  }
  while (server_->connections() < 4) std::this_thread::sleep_for(1ms);
  RawClient fifth(server_->port());
  EXPECT_EQ(StatusOf(fifth.ReadResponse()), 503);
  idle.clear();
  while (server_->connections() > 0) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(Alive());
}

TEST_F(HttpServerTest, StopLetsAnswersFinishAndClosesIdleConnections) {
  Start();
  RawClient busy(server_->port()), idle(server_->port());
  busy.Send(Get("/quiet"));
  ASSERT_TRUE(busy.ReadUntil("HTTP/1.1 200"));
  server_->Stop(10s);
  EXPECT_THAT(busy.ReadAll(), HasSubstr("data: late\n\n\r\n0\r\n\r\n"));
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_FALSE(RawClient(server_->port()).connected());
}

TEST_F(HttpServerTest, StopDoesNotWaitLongerThanItsDeadline) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/hang"));
  std::this_thread::sleep_for(50ms);
  server_->Stop(0ms);
  EXPECT_EQ(departed_.get_future().wait_for(10s), std::future_status::ready);
}

bool Starts(const HttpOptions& options) {
  try {
    HttpServer(options, [](const Request&, auto) {});
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(HttpServer, RefusesToBindBeyondLoopbackWithoutAKey) {
  const auto start = [](const char* address, std::vector<std::string> keys) {
    HttpOptions options;
    options.address = address;
    options.port = 0;
    options.api_keys = std::move(keys);
    bool fits = true;
    try {
      HttpServer::Check(options);
    } catch (const Error&) {
      fits = false;
    }
    EXPECT_EQ(fits, Starts(options));
    HttpServer server(options, [](const Request&, auto responder) {
      responder->Send({.headers = {}, .body = {}});
    });
  };
  EXPECT_THROW(start("0.0.0.0", {}), Error);
  EXPECT_THROW(start("::", {}), Error);
  EXPECT_THROW(start("not an address", {"0123456789abcdef"}), Error);
  EXPECT_THROW(start("127.0.0.1", {"short"}), Error);
  EXPECT_NO_THROW(start("0.0.0.0", {"0123456789abcdef"}));
  EXPECT_NO_THROW(start("localhost", {}));
  HttpOptions open;
  open.address = "0.0.0.0";
  open.port = 0;
  open.allow_anyone = true;
  EXPECT_NO_THROW(HttpServer(open, [](const Request&, auto) {}));
  EXPECT_NO_THROW(HttpServer::Check(open));
  open.tls_certificate = "/no/such/file.pem";
  EXPECT_FALSE(Starts(open));  // no key beside it
  EXPECT_THROW(HttpServer::Check(open), Error);
  open.tls_key = open.tls_certificate;
  EXPECT_FALSE(Starts(open));
  EXPECT_THROW(HttpServer::Check(open), Error);
}

TEST(HttpServer, TakenPortIsAnErrorThatNamesIt) {
  HttpOptions options;
  options.port = 0;
  HttpServer first(options, [](const Request&, auto) {});
  options.port = first.port();
  try {
    HttpServer second(options, [](const Request&, auto) {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(first.port())));
  }
  EXPECT_THROW(HttpServer::Check(options), Error);
  options.port = 0;
  EXPECT_NO_THROW(HttpServer::Check(options));
}

}  // namespace
}  // namespace bakestone::http
