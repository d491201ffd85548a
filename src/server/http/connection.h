// One client's connection: reads its requests one after the other, hands each to the server's
// handler, and writes what comes back. Lives on the I/O thread, which alone uses it, kept alive by
// its coroutines. Internal to http/.
#pragma once

#include <memory>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "server/http/http_server.h"
#include "server/http/keys.h"

namespace bakestone::http {

struct ServerParts {  // what a connection needs of the server
  const HttpOptions& options;
  const Handler& handler;
  const KeyStore& keys;
  boost::asio::thread_pool& handlers;
  boost::asio::ssl::context* tls;  // null: in the clear
  bool stopping = false;           // I/O thread
};

class Connection {
 public:
  virtual ~Connection() = default;
  virtual boost::asio::awaitable<void> Run() = 0;
  virtual boost::asio::awaitable<void> Watch() = 0;  // enforces the deadline
  virtual bool answering() const = 0;
  virtual void Close() = 0;
};

// parts outlive it.
std::shared_ptr<Connection> MakeConnection(boost::asio::ip::tcp::socket socket, ServerParts& parts);

}  // namespace bakestone::http
