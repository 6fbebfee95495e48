;; The Jepsen suite of Troth, for Leiningen. Written with Jepsen 0.3.13 (README.md).
(defproject jepsen.troth "0.1.0"
  :description "Tests Troth with Jepsen."
  :license {:name "Apache-2.0" :url "https://www.apache.org/licenses/LICENSE-2.0"}
  :dependencies [[org.clojure/clojure "1.12.5"]
                 [jepsen "0.3.13"]]
  :main jepsen.troth
  :jvm-opts ["-Xmx2g" "-server"])
