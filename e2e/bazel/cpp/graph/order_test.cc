#include "graph/order.h"

#include "testing/check.h"

int main() {
  graph::Digraph diamond(4);
  diamond.AddEdge(0, 1);
  diamond.AddEdge(0, 2);
  diamond.AddEdge(1, 3);
  diamond.AddEdge(2, 3);
  const auto order = graph::TopologicalOrder(diamond);
  CHECK(order.has_value());
  CHECK(order.has_value() && order->front() == 0 && order->back() == 3);
  diamond.AddEdge(3, 0);
  CHECK(!graph::TopologicalOrder(diamond).has_value());
  return testing::Failures();
}
