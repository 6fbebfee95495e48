// The same work as bench-bare, by Bitronix over pgjdbc's XA: in one process, no calls, with its
// own log (its defaults: forced writes, batched). Started by bench/run, which compiles it.
// Speaks the language of bench/rounds.h on its standard streams. docs/performance.md.

import bitronix.tm.BitronixTransactionManager;
import bitronix.tm.TransactionManagerServices;
import bitronix.tm.resource.jdbc.PoolingDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.util.Arrays;
import java.util.Locale;
import java.util.Random;
import java.util.concurrent.CyclicBarrier;

public final class BitronixDriver {
  private static volatile boolean stop;
  private static volatile boolean over;

  /** One client: transactions in a closed loop, from the beginning of a round to its end. */
  private static final class Client extends Thread {
    private final BitronixTransactionManager manager;
    private final PoolingDataSource[] sources;
    private final CyclicBarrier turn;
    private final Random random;
    private final int rows;
    private long[] nanos = new long[1 << 12];
    private int done;
    private long failed;

    Client(BitronixTransactionManager manager, PoolingDataSource[] sources, CyclicBarrier turn,
        int number, int rows) {
      this.manager = manager;
      this.sources = sources;
      this.turn = turn;
      this.random = new Random(number + 1);
      this.rows = rows;
    }

    @Override
    public void run() {
      try {
        turn.await();
        for (;;) {
          turn.await();
          if (over) {
            return;
          }
          done = 0;
          failed = 0;
          while (!stop) {
            final long began = System.nanoTime();
            if (transact()) {
              if (done == nanos.length) {
                nanos = Arrays.copyOf(nanos, done * 2);
              }
              nanos[done++] = System.nanoTime() - began;
            } else {
              ++failed;
            }
          }
          turn.await();
        }
      } catch (Exception e) {
        e.printStackTrace();
        Runtime.getRuntime().halt(2);
      }
    }

    private boolean transact() throws Exception {
      manager.begin();
      try {
        for (int i = 0; i < sources.length; ++i) {
          try (Connection connection = sources[i].getConnection();
              PreparedStatement change = connection.prepareStatement(
                  "UPDATE account SET balance = balance + ? WHERE id = ?")) {
            change.setInt(1, i == 0 ? -1 : 1);
            change.setInt(2, random.nextInt(rows) + 1);
            change.executeUpdate();
          }
        }
      } catch (java.sql.SQLException e) {
        manager.rollback();
        return false;
      }
      manager.commit();
      return true;
    }
  }

  private static PoolingDataSource source(int number, String[] database, int clients) {
    // HOST PORT USER NAME
    final PoolingDataSource source = new PoolingDataSource();
    source.setClassName("org.postgresql.xa.PGXADataSource");
    source.setUniqueName("p" + number);
    source.setMinPoolSize(clients);
    source.setMaxPoolSize(clients);
    source.setPreparedStatementCacheSize(8);
    source.getDriverProperties().setProperty("serverName", database[0]);
    source.getDriverProperties().setProperty("portNumber", database[1]);
    source.getDriverProperties().setProperty("user", database[2]);
    source.getDriverProperties().setProperty("databaseName", database[3]);
    source.init();
    return source;
  }

  private static double percentile(long[] sorted, double share) {
    if (sorted.length == 0) {
      return 0;
    }
    return sorted[(int) Math.round((sorted.length - 1) * share)] / 1e6;
  }

  private static void tell(Client[] clients, double seconds) {
    int done = 0;
    long failed = 0;
    for (Client client : clients) {
      done += client.done;
      failed += client.failed;
    }
    final long[] all = new long[done];
    int at = 0;
    for (Client client : clients) {
      System.arraycopy(client.nanos, 0, all, at, client.done);
      at += client.done;
    }
    Arrays.sort(all);
    System.out.printf(Locale.ROOT,
        "{\"done\": %d, \"failed\": %d, \"seconds\": %.6f, \"p50_ms\": %.4f, \"p99_ms\": %.4f}%n",
        done, failed, seconds, percentile(all, 0.5), percentile(all, 0.99));
    System.out.flush();
  }

  /** Arguments: DIRECTORY CLIENTS ROWS, then "HOST PORT USER NAME" of each database. */
  public static void main(String[] arguments) throws Exception {
    final String directory = arguments[0];
    final int count = Integer.parseInt(arguments[1]);
    final int rows = Integer.parseInt(arguments[2]);
    final bitronix.tm.Configuration configuration = TransactionManagerServices.getConfiguration();
    configuration.setServerId("bench");
    configuration.setLogPart1Filename(directory + "/btm1.tlog");
    configuration.setLogPart2Filename(directory + "/btm2.tlog");
    configuration.setDisableJmx(true);
    final PoolingDataSource[] sources = new PoolingDataSource[arguments.length - 3];
    for (int i = 0; i < sources.length; ++i) {
      sources[i] = source(i, arguments[i + 3].split(" "), count);
    }
    final BitronixTransactionManager manager = TransactionManagerServices.getTransactionManager();
    final CyclicBarrier turn = new CyclicBarrier(count + 1);
    final Client[] clients = new Client[count];
    for (int i = 0; i < count; ++i) {
      clients[i] = new Client(manager, sources, turn, i, rows);
      clients[i].start();
    }
    turn.await();
    System.out.println("ready");
    System.out.flush();
    final BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      final String[] words = line.trim().split(" ");
      stop = false;
      final long began = System.nanoTime();
      turn.await();
      Thread.sleep((long) (Double.parseDouble(words[2]) * 1000));
      stop = true;
      turn.await();
      tell(clients, (System.nanoTime() - began) / 1e9);
    }
    over = true;
    turn.await();
    for (Client client : clients) {
      client.join();
    }
    manager.shutdown();
    for (PoolingDataSource source : sources) {
      source.close();
    }
  }
}
